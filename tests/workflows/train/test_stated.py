"""What a resumed run takes over from its ledger."""

import shutil
from dataclasses import replace

import pytest

from dpmed.errors import InputError
from dpmed.files import write_json
from dpmed.inference.ledger import ledger_in
from dpmed.planning.run_ledger import run_ledger, with_run_id, with_selection, with_siblings
from dpmed.privacy.ledger import Selected
from dpmed.workflows.train.stated import notes_of, run_id_of, selection_of, siblings_of, uses_of


@pytest.fixture
def stated(tmp_path, plan):
    """Writes the ledger of a run with such facts, and returns its folder."""

    def write(change=lambda facts: facts):
        known = replace(plan, facts=change(plan.facts))
        write_json(tmp_path / "privacy.json", run_ledger(known, draws=3, status="running").to_json())
        return tmp_path

    return write


def test_siblings_are_remembered_by_the_ledger(tmp_path, stated):
    assert siblings_of(tmp_path) == ()
    stated(lambda facts: with_siblings(facts, ["seed=1", "seed=2"]))
    assert siblings_of(tmp_path) == ("seed=1", "seed=2")
    (tmp_path / "privacy.json").write_text("[")
    assert siblings_of(tmp_path) == ()


def test_a_run_keeps_its_random_name(tmp_path, stated, plan):
    assert run_id_of(tmp_path) is None
    facts = with_run_id(plan.facts)
    stated(lambda _: facts)
    assert run_id_of(tmp_path) == facts.run_id and len(run_id_of(tmp_path)) == 32
    (tmp_path / "privacy.json").write_text('{"run_id": 3}')
    assert run_id_of(tmp_path) is None


def test_notes_and_uses_of_data_are_those_of_the_ledger(tmp_path, stated, plan):
    assert notes_of(tmp_path) == uses_of(tmp_path) == ()
    path = stated(lambda facts: replace(facts, notes=("A note.",)))
    assert "A note." in notes_of(path)
    assert set(plan.facts.outside) <= set(uses_of(path)) == set(ledger_in(path)["outside_accounting"])


def test_a_trial_knows_its_selection_by_its_own_ledger_or_by_that_of_the_folder(tmp_path, stated):
    selected = Selected(distribution="geometric", mean_trials=5, epsilon=20.0)
    path = stated(lambda facts: with_selection(facts, selected))
    assert selection_of(path) == selected
    trial = tmp_path / "all" / "trial=1" / "seed=1"
    trial.mkdir(parents=True)
    write_json(tmp_path / "all" / "selection.json", {})
    costs = {"distribution": "fixed", "mean_trials": 3}
    write_json(tmp_path / "all" / "privacy.json", {"epsilon": 9.0, "selection": costs})
    assert selection_of(trial) == Selected(**costs, epsilon=9.0)
    # Its own comes first.
    shutil.copy(path / "privacy.json", trial / "privacy.json")
    assert selection_of(trial) == selected
    write_json(trial / "privacy.json", {"selection": {"distribution": "geometric"}})
    with pytest.raises(InputError, match="does not say what the selection costs") as refused:
        selection_of(trial)
    assert refused.value.where == str(trial / "privacy.json")


def test_a_trial_is_not_resumed_by_itself_if_nothing_says_what_its_selection_costs(tmp_path):
    (tmp_path / "selection.json").write_text("{}")
    trial = tmp_path / "trial=1" / "seed=1"
    trial.mkdir(parents=True)
    with pytest.raises(InputError, match="of which this run is a trial") as refused:
        selection_of(trial)
    assert "command that began it" in refused.value.remedy
    assert selection_of(tmp_path / "seed=1") is None
