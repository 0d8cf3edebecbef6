"""Ledgers that are read back: what they promise, and lies about their files and their ε."""

import json
import shutil

import pytest

from dpmed.errors import InputError
from dpmed.inference.ledger import check_epsilon, check_finished, ledger_in, parse_ledger, read_ledger
from dpmed.privacy.accountant import epsilon
from dpmed.privacy.mechanism import SampledGaussian
from tests.inference.made import ledger_bytes


def ledger(**changes):
    return parse_ledger(ledger_bytes(**changes), where="made")


def test_a_release_run_promises_and_may_leave():
    found = ledger()
    assert found.promises
    assert found.reason_against_release is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"private": False, "epsilon": None}, "without differential privacy"),
        ({"epsilon": None}, "without differential privacy"),
        ({"noise_source": "seeded"}, "came from a seed"),
        ({"noise_source": None}, "came from a seed"),
    ],
)
def test_others_must_stay_inside(changes, reason):
    assert reason in ledger(**changes).reason_against_release


@pytest.mark.parametrize(
    "changes",
    [
        {"private": "yes"},
        {"epsilon": -1},
        {"epsilon": float("inf")},
        {"model_sha256": "abc"},
        {"sampling_rate": 2.0},
        {"steps": 1.5},
    ],
)
def test_what_is_no_ledger_is_refused(changes):
    with pytest.raises(InputError, match="is not a privacy ledger"):
        ledger(**changes)


TRIAL = {"distribution": "geometric", "mean_trials": 10, "epsilon": 5.0, "chosen": False}


def test_of_a_random_number_of_trials_only_the_chosen_may_leave_and_at_no_less_than_the_selection_costs():
    assert "one trial of a selection" in ledger(selection=TRIAL).reason_against_release
    assert ledger(selection={**TRIAL, "chosen": True}).reason_against_release is None
    assert ledger(selection={**TRIAL, "distribution": "fixed"}).reason_against_release is None
    check_epsilon(ledger(epsilon=5.0, selection=TRIAL), where="made")
    with pytest.raises(InputError, match=r"states ε = 4\.9.* cost 5"):
        check_epsilon(ledger(epsilon=4.9, selection=TRIAL), where="made")
    with pytest.raises(InputError, match="is not a privacy ledger"):
        ledger(selection={"distribution": "any"})


COST = epsilon(SampledGaussian(noise_multiplier=2.0, sampling_rate=0.1, steps=100), 1e-5)


def test_a_ledger_that_states_less_than_its_noise_costs_is_refused():
    check_epsilon(ledger(epsilon=COST), where="made")
    with pytest.raises(InputError, match=r"states ε = .* cost 2\.33"):
        check_epsilon(ledger(epsilon=COST * 0.99), where="made")


@pytest.mark.parametrize(
    "changes",
    [
        {"noise_multiplier": 6.0},
        {"noise_multiplier": 6.0, "epsilon_pld": COST / 4},
        {"steps": 10},
        {"sampling_rate": 0.01},
        {"epsilon_pld": COST / 4},
        {"epsilon_pld": None},
        # What choosing the best costs is not computed from one training's steps, but these have their own ε.
        {"noise_multiplier": 6.0, "selection": TRIAL, "epsilon": 5.0},
    ],
)
def test_a_ledger_whose_noise_contradicts_its_epsilon_is_refused(changes):
    with pytest.raises(InputError, match=r"states (ε|epsilon_pld) = .* cost"):
        check_epsilon(ledger(**{"epsilon": COST, **changes}), where="made")


def test_an_epsilon_too_small_to_be_tight_may_be_stated_several_times_too_high():
    tiny = {"noise_multiplier": 1e4, "steps": 1}
    cost = epsilon(SampledGaussian(noise_multiplier=1e4, sampling_rate=0.1, steps=1), 1e-5)
    check_epsilon(ledger(epsilon=0.004, epsilon_pld=0.004, **tiny), where="made")
    assert cost < 0.001


@pytest.mark.parametrize("changes", [{"noise_multiplier": 1e308}, {"steps": 10**20}, {"sampling_rate": 1e-300}])
def test_a_ledger_of_steps_that_no_training_has_is_refused_before_they_are_accounted_for(changes):
    with pytest.raises(InputError, match="no training can have"):
        check_epsilon(ledger(**changes), where="made")


def test_a_finished_run_belongs_together(digits_run, tmp_path):
    found = read_ledger(digits_run / "privacy.json")
    check_finished(found, folder=digits_run)
    check_epsilon(found, where="privacy.json")
    folder = tmp_path / "run"
    shutil.copytree(digits_run, folder)
    for name in ("model.eqx", "config.toml"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b" ")
        with pytest.raises(InputError, match=f"belongs to another {name}"):
            check_finished(found, folder=folder)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "running"}, "is running, not finished"),
        ({"status": "stopped"}, "is stopped, not finished"),
        ({"steps_planned": 10**6}, r"planned steps: .* no bound.*--resume"),
        ({"model_sha256": None}, "names no SHA-256 of model.eqx"),
        ({"config_sha256": None}, "names no SHA-256 of config.toml"),
    ],
)
def test_an_unfinished_or_unbound_ledger_is_refused(digits_run, changes, words):
    facts = json.loads((digits_run / "privacy.json").read_text())
    changed = parse_ledger(json.dumps({**facts, **changes}).encode(), where="made")
    with pytest.raises(InputError, match=words):
        check_finished(changed, folder=digits_run)


@pytest.mark.parametrize("content", ["[", "[1]", "3"])
def test_what_is_no_ledger_states_nothing(tmp_path, content):
    (tmp_path / "privacy.json").write_text(content)
    assert ledger_in(tmp_path) == {}
