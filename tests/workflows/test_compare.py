"""Runs side by side: names, tables and paired differences of runs that were made without training."""

import csv
import json
import shutil

import numpy as np
import pytest

from dpmed.config.load import config_to_toml, load_config
from dpmed.config.model import MlpModel
from dpmed.data.build import build_dataset
from dpmed.data.split import split_dataset
from dpmed.errors import InputError
from dpmed.inference.network import eqx_digest, named_arrays
from dpmed.inference.predictor import load_model
from dpmed.models.weights import save_weights
from dpmed.progress import Silent
from dpmed.workflows import compare
from tests.inference.made import ledger_bytes, make_network

DIGITS = tuple(str(number) for number in range(10))


def make_run(folder, seed, *, overrides=(), epsilon=2.5):
    """The files of a finished run with an untrained network."""
    folder.mkdir(parents=True)
    config = load_config("quickstart", ["data.limit=400", "evaluation.bootstrap=50", *overrides]).config
    facts = {"classes": DIGITS, "preprocessing": {"scale": 16.0}}
    network, description = make_network(MlpModel(name="mlp", width=(5,)), (8, 8, 1), seed=seed, **facts)
    dataset = build_dataset(config.data, progress=Silent())
    split = split_dataset(dataset, config.data, seed=config.training.seed)
    save_weights(folder / "model.eqx", (network.module, network.state))
    (folder / "config.toml").write_text(config_to_toml(config))
    (folder / "model.json").write_text(json.dumps(description.to_json()))
    (folder / "privacy.json").write_bytes(ledger_bytes(model_sha256=eqx_digest(named_arrays(network))))
    (folder / "split.json").write_text(json.dumps(split.to_json()))
    answers = load_model(folder).predict(dataset.inputs[split.test]).argmax(axis=1)
    accuracy = float((answers == dataset.targets[split.test]).mean())
    summary = {
        "test": {"loss": 2.0, "accuracy": accuracy},
        "main_metric": "accuracy",
        "epsilon": epsilon,
        "delta": 1e-5,
    }
    summary["test_interval"] = {"accuracy": [accuracy / 2, accuracy * 1.5]}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder / "eps=1" / "seed=10", 0, epsilon=1.00004)
    make_run(folder / "eps=8" / "seed=10", 1, epsilon=None)
    make_run(folder / "other", 2, overrides=["training.seed=11"])
    return folder


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_runs_that_share_their_test_are_compared_on_its_samples(runs, tmp_path):
    found = compare.read_runs([runs / "eps=1" / "seed=10", runs / "eps=8" / "seed=10", runs / "other"])
    assert [one.name for one in found] == ["eps=1/seed=10", "eps=8/seed=10", "other"]
    summary = compare.run(found, tmp_path, Silent())
    (comparison,) = summary.comparisons
    assert (comparison.model, comparison.against) == ("eps=8/seed=10", "eps=1/seed=10")
    accuracy = {row.metric: row for row in comparison.differences}["accuracy"]
    # The repeated predictions give the results of the run's own test.
    assert accuracy.value == pytest.approx(found[1].test["accuracy"])
    assert accuracy.difference == pytest.approx(found[1].test["accuracy"] - found[0].test["accuracy"])
    assert any("other does not share the test split" in note for note in summary.notes)
    rows = rows_of(tmp_path / "compare.csv")
    assert [row["epsilon"] for row in rows] == ["1.00004", "", "2.5"]
    assert float(rows[0]["accuracy_high"]) == pytest.approx(1.5 * found[0].test["accuracy"])
    row = next(row for row in rows_of(tmp_path / "differences.csv") if row["metric"] == "accuracy")
    assert (row["run"], row["reference"]) == ("eps=8/seed=10", "eps=1/seed=10")
    assert float(row["reference_value"]) == pytest.approx(found[0].test["accuracy"])
    assert float(row["difference_low"]) <= accuracy.difference <= float(row["difference_high"])
    assert len(rows_of(tmp_path / "delong.csv")) == 10
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {f"{stem}.{kind}" for stem in ("compare", "differences") for kind in ("png", "pdf", "svg")}
    assert json.loads((tmp_path / "compare.json").read_text())["reference"] == "eps=1/seed=10"


def test_without_pairs_no_data_are_needed(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "build_dataset", lambda *_, **__: pytest.fail("data were read"))
    found = compare.read_runs([runs / "eps=1" / "seed=10", runs / "eps=8" / "seed=10"])
    summary = compare.run(found, tmp_path, Silent(), paired=False)
    assert summary.comparisons == ()
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".json", ".png", ".pdf", ".svg"}
    columns, rows = summary.table()
    assert columns == ["run", "ε", "accuracy", "loss"] and "to" in rows[0][2]
    assert [row[1] for row in rows] == ["1.001", "none"]


def test_a_changed_split_is_noticed(runs, tmp_path):
    folders = []
    for name in ("a", "b"):
        folders.append(shutil.copytree(runs / "eps=1" / "seed=10", tmp_path / name))
        split = json.loads((folders[-1] / "split.json").read_text())
        split["train"].pop()
        (folders[-1] / "split.json").write_text(json.dumps(split))
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="has changed since"):
        compare.run(compare.read_runs(folders), tmp_path / "out", Silent())


def damaged(folder, target, change):
    copied = shutil.copytree(folder, target)
    change(copied)
    return copied


def change_summary(folder, **changes):
    path = folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "summary.json").unlink(), "has not finished"),
        (lambda folder: (folder / "summary.json").write_text('{"test": {}}'), "is not the summary"),
        (lambda folder: (folder / "summary.json").write_text("[1]"), "is not the summary"),
        (lambda folder: change_summary(folder, test={"accuracy": 10**400}), "is not the summary"),
        (lambda folder: (folder / "config.toml").unlink(), "holds no training run"),
    ],
)
def test_half_a_run_is_refused(runs, tmp_path, change, words):
    whole = runs / "other"
    with pytest.raises(InputError, match=words):
        compare.read_runs([whole, damaged(whole, tmp_path / "half", change)])


def test_two_different_runs_are_needed(runs):
    with pytest.raises(InputError, match="at least two"):
        compare.read_runs([runs / "other"])
    with pytest.raises(InputError, match="twice"):
        compare.read_runs([runs / "other", runs / "eps=1" / ".." / "other"])
    assert np.isfinite(compare.read_runs([runs / "other", runs / "eps=1" / "seed=10"])[0].test["loss"])
