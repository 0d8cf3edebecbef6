"""`dpmed compare` as a user runs it."""

import json

import pytest

from tests.workflows.test_compare import runs

__all__ = ["runs"]


def test_it_writes_tables_and_figures_and_names_the_folder(dpmed, runs, tmp_path):
    both = [runs / "eps=1" / "seed=10", runs / "eps=8" / "seed=10"]
    done = dpmed("-q", "compare", *both, "--out", tmp_path / "c")
    assert done.returncode == 0, done.stderr
    assert "Paired differences" in done.stdout and "must stay within your institution" in done.stdout
    assert done.stdout.splitlines()[-1] == str(tmp_path / "c")
    found = json.loads(dpmed("-q", "compare", *both, "--no-paired", "--json").stdout)
    assert [one["run"] for one in found["runs"]] == ["eps=1/seed=10", "eps=8/seed=10"] and found["comparisons"] == []


@pytest.mark.parametrize(
    ("names", "words"),
    [(["other"], "at least two"), (["other", "other"], "twice"), (["other", "none"], "holds no training run")],
)
def test_wrong_use_is_one_message(dpmed, runs, tmp_path, names, words):
    done = dpmed("compare", *(runs / name for name in names), "--out", tmp_path / "c")
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "c").exists()
