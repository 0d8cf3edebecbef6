"""Each run of several names all others, and a folder of a sweep takes no runs that the sweep would not count."""

import json
import shutil

import pytest

from dpmed.errors import InputError
from dpmed.inference.composed_ledger import composed_with, read_spendings
from dpmed.planning.run_ledger import SIBLINGS_NOTE
from dpmed.workflows.train.siblings import name_siblings, require_outermost
from tests.inference.made import ONE_OF_SEVERAL as LEDGER
from tests.inference.made import write_runs


def test_each_run_names_all_others_and_says_once_what_choosing_costs(tmp_path):
    folder = write_runs(tmp_path, seed_1=LEDGER, seed_2=LEDGER)
    for _ in range(2):
        name_siblings(folder, read_spendings(folder), ["seed=3"])
        content = json.loads((folder / "seed=1" / "privacy.json").read_text())
        assert content == {**LEDGER, "siblings": ["seed=2", "seed=3"], "notes": ["A note.", SIBLINGS_NOTE]}
    # A run that was deleted has been spent all the same.
    shutil.rmtree(folder / "seed=2")
    name_siblings(folder, read_spendings(folder), ["seed=3"])
    assert json.loads((folder / "seed=1" / "privacy.json").read_text())["siblings"] == ["seed=2", "seed=3"]
    assert composed_with(folder / "seed=1", ["seed=2", "seed=3"]) is None
    alone = write_runs(tmp_path / "alone", seed_1=LEDGER)
    name_siblings(alone, read_spendings(alone), [])
    assert json.loads((alone / "seed=1" / "privacy.json").read_text()) == LEDGER


def test_no_run_is_added_to_a_part_of_a_sweep_behind_its_ledgers_back(tmp_path):
    level = tmp_path / "epsilon=8"
    level.mkdir()
    require_outermost(level)
    (tmp_path / "privacy.json").write_text(json.dumps({"runs": [{"folder": "epsilon=8/seed=1"}]}))
    with pytest.raises(InputError, match="part of a sweep"):
        require_outermost(level)
    require_outermost(tmp_path)
    (tmp_path / "privacy.json").write_text(json.dumps(LEDGER))
    require_outermost(level)
