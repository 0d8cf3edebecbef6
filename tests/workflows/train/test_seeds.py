"""Several seeds: a run each, what is missing is made up, and mean and standard deviation are those of the runs."""

import json
import statistics

import pytest

from dpmed.errors import InputError
from dpmed.workflows.train.seeds import parse_seeds
from tests.workflows.conftest import SMALL, call

TINY = [*SMALL, "--set", "training.epochs=2", "--set", "evaluation.every_epochs=2"]


def test_runs_are_made_once_and_summed_up(tmp_path):
    folder = tmp_path / "runs"
    first = call("train", "quickstart", *TINY, "--seeds", "10,11", "--out", folder)
    assert first.returncode == 0, first.stderr
    weights = (folder / "seed=10" / "model.eqx").read_bytes()
    (folder / "seed=11" / "summary.json").unlink()
    again = call("train", "quickstart", *TINY, "--seeds", "10,11", "--out", folder, "--json")
    assert again.returncode == 0, again.stderr
    assert (folder / "seed=10" / "model.eqx").read_bytes() == weights
    summary = json.loads(again.stdout)
    accuracies = [
        json.loads((folder / f"seed={seed}" / "summary.json").read_text())["test"]["accuracy"] for seed in (10, 11)
    ]
    assert summary["test"]["accuracy"]["mean"] == pytest.approx(statistics.fmean(accuracies))
    assert summary["test"]["accuracy"]["std"] == pytest.approx(statistics.stdev(accuracies))
    other = call("train", "quickstart", *TINY, "--set", "privacy.epsilon=2", "--seeds", "10", "--out", folder)
    assert other.returncode == 2
    assert "another config" in other.stderr


@pytest.mark.parametrize("text", ["", "a", "1,,2", "1,1", "-1", "4294967296", "1.5"])
def test_a_wrong_list_is_refused(text):
    with pytest.raises(InputError, match="--seeds"):
        parse_seeds(text)


def test_a_list_is_read_in_its_order():
    assert parse_seeds("10,11,100, 101,110") == (10, 11, 100, 101, 110)
