"""The result of a run as text and as JSON."""

import json
from importlib.metadata import version
from pathlib import Path

from dpmed.workflows.train.summary import TrainSummary, versions


def summary(**changed):
    facts = {
        "folder": Path("runs/mine"), "test": {"loss": 0.5, "accuracy": 0.75}, "intervals": {"accuracy": (0.7, 0.8)},
        "main_metric": "accuracy",
        "epsilon": 7.9994, "delta": 1e-5, "steps": 150, "seconds": 2.0, "samples_per_second": 4800.0,
        "notes": ("A note.",), "release": ("May leave.",), **changed,
    }  # fmt: skip
    return TrainSummary(**facts)


def test_words():
    assert summary().describe() == {
        "test loss": "0.5000",
        "test accuracy": "0.7500  (95 % interval 0.7000 to 0.8000)",
        "privacy": "ε = 8 at δ = 1e-05",
        "time": "2.0 s, 4800 samples/s",
        "run folder": "runs/mine",
    }
    assert summary(delta=1.2345649e-6).describe()["privacy"] == "ε = 8 at δ = 1.23457e-06"
    assert summary(epsilon=None, delta=None).describe()["privacy"] == "none"


def test_json():
    content = json.loads(json.dumps(summary().to_json()))
    assert content["epsilon"] == 7.9994
    assert content["test_interval"] == {"accuracy": [0.7, 0.8]}
    assert content["notes"] == ["A note."] and content["release"] == ["May leave."]
    assert content["versions"] == versions()
    assert versions()["jax"] == version("jax")
