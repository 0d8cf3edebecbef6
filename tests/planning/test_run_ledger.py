"""The ledger of a run follows its plan, with and without privacy, and names siblings once."""

from dataclasses import replace

import pytest

from dpmed.config.load import load_config
from dpmed.planning.plan import make_plan
from dpmed.planning.run_ledger import (
    SIBLINGS_NOTE,
    place_notes,
    run_ledger,
    with_run_id,
    with_selection,
    with_siblings,
    with_siblings_note,
)
from dpmed.privacy.accountant import epsilon
from dpmed.privacy.ledger import Selected, describe_release
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.progress import Silent
from dpmed.rounding import rounded_up

SMALL = ["data.limit=100", "training.batch_size=20", "training.epochs=2", "model.width=[4]"]


@pytest.fixture(scope="module")
def plans():
    return {
        name: make_plan(load_config(name, SMALL).config, Silent()) for name in ("quickstart", "quickstart_nonprivate")
    }


def test_a_private_run_states_the_epsilon_of_the_draws_that_are_counted(plans):
    plan = plans["quickstart"]
    found = run_ledger(plan, draws=3, status="stopped", notes=("Said here.",))
    mechanism = SampledGaussian(
        noise_multiplier=plan.budget.noise_multiplier, sampling_rate=20 / plan.train_size, steps=3
    )
    assert found.epsilon == epsilon(mechanism, 1e-5)
    assert (found.steps, found.steps_planned, found.private) == (3, plan.steps, True)
    *notes, last = found.notes
    assert notes == [*plan.facts.notes, "Said here."]
    # When a person stopped it may have depended on what was seen: then only ε of the whole plan holds.
    assert f"all {plan.steps} planned steps, {rounded_up(plan.budget.epsilon)}" in last


def test_a_run_without_privacy_promises_nothing(plans):
    found = run_ledger(plans["quickstart_nonprivate"], draws=3, status="finished")
    assert (found.private, found.epsilon, found.steps, found.expected_batch_size) == (False, None, 3, 20)


def test_siblings_are_named_and_the_note_on_them_stands_once(plans):
    facts = plans["quickstart"].facts
    named = with_siblings(with_siblings(facts, ["seed=1"]), ["seed=1", "seed=2"])
    assert named.siblings == ("seed=1", "seed=2")
    assert named.notes == (*facts.notes, SIBLINGS_NOTE)
    assert with_siblings(named, []) == facts
    assert with_siblings_note((SIBLINGS_NOTE, "a"), ["x"]) == ("a", SIBLINGS_NOTE)


@pytest.mark.parametrize(("distribution", "accountant"), [("geometric", "rdp"), ("fixed", "pld")])
def test_a_trial_states_what_its_selection_costs_from_its_first_step_on(plans, distribution, accountant):
    plan = plans["quickstart"]
    selected = Selected(distribution=distribution, mean_trials=5, epsilon=20.0)
    facts = with_selection(with_selection(plan.facts, selected), selected)
    assert len(facts.notes) == len(plan.facts.notes) + 1 and len(facts.outside) == len(plan.facts.outside) + 1
    found = run_ledger(replace(plan, facts=facts), draws=1, status="running")
    assert (found.epsilon, found.accountant) == (20.0, accountant)
    assert found.epsilon_pld == run_ledger(plan, draws=1, status="running").epsilon_pld < 20.0
    assert found.to_json()["selection"] == {
        "distribution": distribution, "mean_trials": 5, "epsilon": 20.0, "chosen": False,
    }  # fmt: skip
    assert ("one trial of a selection" in describe_release(found)[0]) == (distribution == "geometric")
    # Never less than the training itself has spent.
    small = with_selection(plan.facts, replace(selected, epsilon=0.1))
    spent = run_ledger(plan, draws=plan.steps, status="finished").epsilon
    assert run_ledger(replace(plan, facts=small), draws=plan.steps, status="finished").epsilon == spent


def test_what_places_do_is_noted_with_its_size_and_stays_noted():
    assert place_notes(0.0) == place_notes(0.0, ("Another.",)) == ()
    (found,) = place_notes(3e-8)
    assert "adds up to 3e-08 of a clipped gradient" in found and "ε does not count" in found
    assert place_notes(0.0, (found, "Another.")) == place_notes(3e-8, (found,)) == (found,)
    assert len(place_notes(5e-8, (found,))) == 2


def test_a_run_has_one_random_name():
    facts = make_plan(load_config("quickstart").config, Silent()).facts
    named = with_run_id(facts)
    assert facts.run_id is None and len(named.run_id) == 32
    assert with_run_id(named) == named != with_run_id(facts)
    assert with_run_id(named, "another").run_id == "another"
