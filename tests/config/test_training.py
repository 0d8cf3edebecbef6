"""`[training]` and `[evaluation]`: defaults that read nothing private, and what is refused."""

import json
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from dpmed.config.load import load_config
from dpmed.config.training import EvaluationConfig, TrainingConfig
from dpmed.errors import InputError
from dpmed.files import write_csv

DOCS = Path(__file__).resolve().parents[2] / "docs" / "evaluate.md"


def make(**table):
    return TrainingConfig.model_validate_json(json.dumps({"batch_size": 8, **table}))


def test_nothing_that_reads_private_validation_samples_is_on_by_default():
    config = make()
    assert config.early_stopping is None and config.track == ()
    assert config.precision == "float32" and config.microbatch == "auto"


def test_early_stopping_needs_its_patience():
    assert make(early_stopping={"patience": 3}).early_stopping.min_delta == 0
    with pytest.raises(ValidationError, match="patience"):
        make(early_stopping={})


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"batch_size": 0},
        {"microbatch": 0},
        {"microbatch": "all"},
        {"precision": "float16"},
        {"seed": -1},
        {"seed": 2**32},
        {"ema_decay": 1},
        {"checkpoint_steps": 0},
        {"track": ["wandb"]},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        make(**wrong)


def test_evaluation_has_intervals_unless_they_are_switched_off():
    assert EvaluationConfig().bootstrap == 1000
    assert EvaluationConfig(bootstrap=0).bootstrap == 0
    for wrong in ({"bootstrap": -1}, {"bootstrap": 100_001}, {"every_epochs": 0}, {"batch_size": 0}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            EvaluationConfig(**wrong)


def test_mlflow_is_refused_with_its_reason_and_a_way_out():
    with pytest.raises(InputError, match=r"training\] track.*sends nothing anywhere.*tensorboard"):
        load_config("quickstart", ['training.track=["mlflow"]'])
    with pytest.raises(InputError, match="tensorboard"):
        load_config("quickstart", ['training.track=["wandb"]'])
    assert load_config("quickstart", ['training.track=["tensorboard"]']).config.training.track == ("tensorboard",)


def test_the_way_out_logs_every_number(tmp_path, monkeypatch):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    rows = [
        {"epoch": 1, "step": 7, "epsilon": 0.5, "split": "validation", "loss": 2.0, "accuracy": None},
        {"epoch": 2, "step": 14, "epsilon": 0.7, "split": "test", "loss": 1.5, "accuracy": 0.8},
    ]
    write_csv(tmp_path / "runs" / "mine" / "metrics.csv", rows, list(rows[0]))
    logged = []
    client = SimpleNamespace(
        start_run=nullcontext, log_metric=lambda key, value, step: logged.append((key, value, step))
    )
    monkeypatch.setitem(sys.modules, "mlflow", client)
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    # The example of our own page, as its reader would run it.
    exec(compile(example, str(DOCS), "exec"), {})
    assert logged == [
        ("validation/epsilon", 0.5, 7),
        ("validation/loss", 2.0, 7),
        ("test/epsilon", 0.7, 14),
        ("test/loss", 1.5, 14),
        ("test/accuracy", 0.8, 14),
    ]
