"""Each run of several names all others, and a folder of a sweep takes no runs that the sweep would not count."""

import json
import shutil

import pytest

from dpmed.errors import InputError
from dpmed.inference.composed_ledger import compose, composed_with, read_deleted, read_spendings, spending
from dpmed.planning.run_ledger import SIBLINGS_NOTE
from dpmed.workflows.train.siblings import folders_counting, keep_begun_run, name_siblings, require_outermost
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


def planned(folder, name, **changed):
    """Write the ledger of a folder in which one run is present and another is about to begin."""
    plan = spending(name, {**LEDGER, "status": "planned", "run_id": "a", **changed}, where=name)
    present = read_spendings(folder)
    (folder / "privacy.json").write_text(json.dumps(compose([*present.values(), plan]).to_json()))


def deleted_in(folder):
    return [(run.name, run.steps, run.ledger["run_id"]) for run in read_deleted(folder, read_spendings(folder))]


@pytest.mark.parametrize("name", ["seed=2", "epsilon=8/seed=2"])
@pytest.mark.parametrize("random_name", ["a", "b"])
def test_a_run_that_was_killed_after_it_had_begun_counts_once_when_its_folder_is_emptied(tmp_path, name, random_name):
    folder = write_runs(tmp_path, seed_1=LEDGER)
    planned(folder, name)
    (folder / name).mkdir(parents=True)
    assert deleted_in(folder) == []
    ledger = {**LEDGER, "status": "running", "epsilon": 0.5, "run_id": random_name}
    (folder / name / "privacy.json").write_text(json.dumps(ledger))
    for _ in range(2):
        keep_begun_run(folder / name, ledger)
        assert deleted_in(folder) == []
    (folder / name / "privacy.json").unlink()
    assert deleted_in(folder) == [(name, 20, random_name)]
    # What takes its place counts beside it.
    (folder / name / "privacy.json").write_text(json.dumps({**ledger, "run_id": "c"}))
    assert deleted_in(folder) == [(name, 20, random_name)]


@pytest.mark.parametrize("changed", [{"noise_multiplier": 2.0}, {"steps_planned": 30}, {"unit_of_privacy": "image"}])
def test_a_run_that_spends_other_than_was_planned_is_not_taken_for_the_planned_one(tmp_path, changed):
    folder = write_runs(tmp_path, seed_1=LEDGER)
    planned(folder, "seed=2")
    before = (folder / "privacy.json").read_bytes()
    keep_begun_run(folder / "seed=2", {**LEDGER, "status": "running", "run_id": "a", **changed})
    keep_begun_run(folder / "seed=3", {**LEDGER, "status": "running", "run_id": "a"})
    assert (folder / "privacy.json").read_bytes() == before


def test_a_run_is_counted_by_the_folders_that_list_it_and_by_the_selection_it_is_a_trial_of(tmp_path):
    folder = write_runs(tmp_path, seed_1=LEDGER)
    assert folders_counting(folder / "seed=2") == []
    planned(folder, "seed=2")
    assert folders_counting(folder / "seed=2") == [folder.resolve()]
    assert folders_counting(folder / "seed=3") == []
    trial = tmp_path / "trial=1" / "seed=7"
    assert folders_counting(trial) == []
    (tmp_path / "selection.json").write_text("{}")
    assert folders_counting(trial) == [tmp_path.resolve()]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"runs": 3}', '{"runs": [3]}', json.dumps(LEDGER)])
def test_a_run_begins_below_any_file_that_is_no_ledger_of_several_runs(tmp_path, content):
    (tmp_path / "privacy.json").write_text(content)
    keep_begun_run(tmp_path / "seed=1", LEDGER)
    assert (tmp_path / "privacy.json").read_text() == content


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
    (tmp_path / "privacy.json").write_text(json.dumps({"selection": {}}))
    with pytest.raises(InputError, match="one of the trials of a selection"):
        require_outermost(level)
