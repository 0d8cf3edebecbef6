"""A sweep over budgets: a run per ε and one without privacy, made once, as table, CSV and figure."""

import csv

import pytest

from dpmed.errors import InputError
from dpmed.workflows.train.sweep import parse_epsilons
from tests.workflows.conftest import SMALL, call

TINY = [*SMALL, "--set", "training.epochs=2", "--set", "evaluation.every_epochs=2"]


def test_levels_are_run_once_and_drawn_with_the_line_without_privacy(tmp_path):
    folder = tmp_path / "sweep"
    first = call("train", "quickstart", *TINY, "--set", "privacy.epsilon=1,8", "--out", folder)
    assert first.returncode == 0, first.stderr
    rows = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))
    assert [row["level"] for row in rows] == ["1", "8", "non-private"]
    assert [row["epsilon"] for row in rows] == ["1.0", "8.0", ""]
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)
    for ending in ("png", "pdf", "svg", "json"):
        assert (folder / f"sweep.{ending}").stat().st_size > 500
    weights = (folder / "epsilon=8" / "seed=10" / "model.eqx").read_bytes()
    again = call("train", "quickstart", *TINY, "--epsilons", "1,8", "--out", folder)
    assert again.returncode == 0, again.stderr
    assert (folder / "epsilon=8" / "seed=10" / "model.eqx").read_bytes() == weights


@pytest.mark.parametrize("text", ["", "a", "1,,2", "1,1", "-1", "0", "inf", "nan"])
def test_a_wrong_list_is_refused(text):
    with pytest.raises(InputError, match="--epsilons"):
        parse_epsilons(text)


def test_a_sweep_needs_privacy(tmp_path):
    done = call("train", "quickstart_nonprivate", "--epsilons", "1,8", "--out", tmp_path / "no")
    assert done.returncode == 2
    assert "private config" in done.stderr
