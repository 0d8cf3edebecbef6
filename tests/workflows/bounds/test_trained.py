"""Bounds of what was trained: one run, several together, and those of which nothing can be said."""

import json
from dataclasses import replace

import pytest

from dpmed.config.shipped import shipped_folder
from dpmed.errors import InputError
from dpmed.inference.composed_ledger import compose, read_spendings
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.several import composed_epsilon
from dpmed.privacy.tradeoff import Composition
from dpmed.progress import Silent
from dpmed.workflows.bounds.run import check, run
from dpmed.workflows.bounds.settings import BoundsSettings, GivenOptions, gather
from dpmed.workflows.bounds.trained import SEEDED, from_ledger
from tests.inference.made import ledger_bytes

OWN = SampledGaussian(noise_multiplier=2.0, sampling_rate=0.1, steps=100)


def several(folder, **runs):
    """A folder of runs with these changes to their ledgers, as a command leaves it."""
    for name, changes in runs.items():
        place = folder / name.replace("seed", "seed=")
        place.mkdir(parents=True)
        others = [other.replace("seed", "seed=") for other in runs if other != name]
        facts = {"steps_planned": 100, "siblings": others, **changes}
        (place / "privacy.json").write_bytes(ledger_bytes(**facts))
    (folder / "privacy.json").write_text(json.dumps(compose(read_spendings(folder).values()).to_json()))
    return folder


def bounded(folder, out, monkeypatch, **changes):
    """The only row of the bounds of a folder."""
    for name in ("plot_risks", "plot_tradeoffs"):
        monkeypatch.setattr(f"dpmed.workflows.bounds.run.{name}", lambda *_, **__: None)
    facts, source = gather(str(folder), GivenOptions(), Silent())
    settings = BoundsSettings(**facts, adversaries=("worst-case", "relaxed"), source=source)
    (row,) = run(replace(settings, **changes), out, Silent()).rows
    return row


def test_runs_of_equal_noise_are_one_run_of_all_their_steps(tmp_path, monkeypatch):
    folder = several(tmp_path / "runs", seed1={}, seed2={}, seed3={})
    row = bounded(folder, tmp_path, monkeypatch)
    together = replace(OWN, steps=300)
    assert (row["noise_multiplier"], row["steps"], row["train_size"]) == (2.0, 300, 100)
    assert row["epsilon"] == composed_epsilon([together], 1e-5)
    assert row["worst_case_upper"] == Composition.of([together], "worst-case").upper_power(0.01)


def test_a_rate_that_no_whole_batch_has_is_kept(tmp_path, monkeypatch):
    # Rounded to 10 of 104 samples, it would be smaller, and so would the bounds.
    folder = several(tmp_path / "runs", seed1={"train_size": 104}, seed2={"train_size": 104})
    row = bounded(folder, tmp_path, monkeypatch)
    together = [replace(OWN, steps=200)]
    assert (row["prior"], row["steps"]) == (1 / 104, 200)
    assert row["epsilon"] == composed_epsilon(together, 1e-5)
    assert row["worst_case_upper"] == Composition.of(together, "worst-case").upper_power(1 / 104)


def test_runs_of_different_noise_are_composed(tmp_path, monkeypatch):
    folder = several(tmp_path / "runs", seed1={}, seed2={"noise_multiplier": 3.0, "train_size": 90})
    row = bounded(folder, tmp_path, monkeypatch)
    together = [OWN, replace(OWN, noise_multiplier=3.0)]
    assert (row["noise_multiplier"], row["sampling_rate"], row["steps"]) == (None, None, 200)
    # Of the smallest training set, which is the easiest to guess from.
    assert row["prior"] == 1 / 90
    assert row["epsilon"] == row["epsilon_pld"] == composed_epsilon(together, 1e-5) < row["epsilon_rdp"]
    assert row["worst_case_upper"] == Composition.of(together, "worst-case").upper_power(1 / 90)
    assert row["relaxed_upper"] < row["relaxed_constant_sign_upper"] < row["worst_case_upper"]
    for changes in ({"epsilons": (1.0,)}, {"noise_multipliers": (1.0,)}, {"max_risk": 0.5}):
        facts, source = gather(str(folder), GivenOptions(), Silent())
        with pytest.raises(InputError, match="different noise or rates"):
            check(BoundsSettings(**{**facts, **changes}, adversaries=("worst-case",), source=source))
    with pytest.raises(InputError, match="different noise or rates") as refused:
        gather(str(folder), GivenOptions(steps=3), Silent())
    assert refused.value.where == "steps"


def test_runs_that_were_deleted_count_and_those_without_an_epsilon_are_named(tmp_path):
    exposed = {"private": False, "epsilon": None, "delta": None, "noise_multiplier": None, "noise_source": None}
    folder = several(tmp_path / "runs", seed1={}, seed2={"run_id": "gone"}, seed3=exposed)
    (folder / "seed=2" / "privacy.json").unlink()
    (folder / "seed=2").rmdir()
    facts, source = from_ledger(folder, Silent())
    assert facts["steps"] == 200 and "together" in source
    assert "2 private runs together" in facts["notes"][0] and "seed=3" in facts["notes"][1]
    # Noise that a seed determines bounds nothing beside a release run.
    seeded = several(tmp_path / "seeded", seed1={}, seed2={"noise_source": "seeded"})
    facts, _ = from_ledger(seeded, Silent())
    assert facts["steps"] == 100 and "seed=2" in facts["notes"][1] and SEEDED not in facts["notes"]


def test_bounds_by_noise_from_a_seed_say_for_whom_they_do_not_hold(tmp_path):
    seeded = {"noise_source": "seeded"}
    folder = several(tmp_path / "seeded", seed1=seeded, seed2=seeded)
    for place in (folder, folder / "seed=1"):
        assert from_ledger(place, Silent())[0]["notes"][-1] == SEEDED
    config = tmp_path / "seeded.toml"
    text = (shipped_folder() / "quickstart.toml").read_text(encoding="utf-8")
    config.write_text(text.replace("[privacy]", '[privacy]\nnoise_source = "seeded"'), encoding="utf-8")
    assert gather(str(config), GivenOptions(), Silent())[0]["notes"] == (SEEDED,)
    assert gather("quickstart", GivenOptions(), Silent())[0]["notes"] == ()


@pytest.mark.parametrize("status", ["finished", "stopped", "running"])
def test_a_run_that_ended_early_is_bounded_by_all_its_planned_steps(tmp_path, status):
    (tmp_path / "privacy.json").write_bytes(ledger_bytes(steps=20, steps_planned=100, status=status))
    facts, _ = from_ledger(tmp_path, Silent())
    assert facts["steps"] == 100


def test_one_private_run_among_others_is_no_choice_and_another_training_is_not_these_runs(tmp_path):
    exposed = {"private": False, "epsilon": None, "delta": None, "noise_multiplier": None, "noise_source": None}
    folder = several(tmp_path / "runs", seed1={}, seed2=exposed)
    facts, _ = gather(str(folder), GivenOptions(), Silent())
    assert facts["notes"][0] == "These are bounds of the steps of 1 private run."
    assert gather(str(folder), GivenOptions(prior=0.1), Silent())[0]["notes"] == facts["notes"]
    assert gather(str(folder), GivenOptions(train_size=5000), Silent())[0]["notes"] == ()


def test_a_run_with_siblings_says_that_choosing_among_them_risks_more(tmp_path, monkeypatch):
    folder = several(tmp_path / "runs", seed1={}, seed2={})
    monkeypatch.chdir(tmp_path)
    (note,) = from_ledger(folder / "seed=1", Silent())[0]["notes"]
    assert "one of 2 runs" in note and "`dpmed bounds runs`" in note
    (folder / "privacy.json").unlink()
    assert "unknown" in from_ledger(folder / "seed=1", Silent())[0]["notes"][0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"selection": {"distribution": "fixed", "mean_trials": 2}}, "holds the trials of a selection"),
        ({"runs": [{"folder": "seed=1"}]}, "is not the ledger of several runs"),
        ({"runs": []}, "none of these runs has made a step with"),
        ({}, "is not a privacy ledger"),
    ],
)
def test_a_folder_of_which_nothing_can_be_said_is_refused(tmp_path, content, words):
    (tmp_path / "privacy.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        from_ledger(tmp_path, Silent())


def test_a_folder_that_holds_no_ledger_names_what_does(tmp_path):
    with pytest.raises(InputError, match=r"holds no privacy\.json.*the one that holds all runs"):
        gather(str(tmp_path), GivenOptions(), Silent())


@pytest.mark.parametrize("too_large", [".", "seed=2"])
def test_a_ledger_too_large_to_be_one_is_refused_before_it_is_read_whole(tmp_path, too_large):
    folder = several(tmp_path / "runs", seed1={}, seed2={})
    path = folder / too_large / "privacy.json"
    content = {**json.loads(path.read_text()), "padding": "x" * (4 << 20)}
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="is over 4 MiB, which no ledger is") as refused:
        from_ledger(folder, Silent())
    assert refused.value.where == str(path)
