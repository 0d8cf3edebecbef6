"""A random number of trials: drawn once, each scored through its model, and counted as the theorem says."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from dpmed.config.load import load_config
from dpmed.errors import InputError
from dpmed.inference.ledger import read_ledger
from dpmed.planning.advice.suggestion import Setting
from dpmed.planning.enrolment import enrol
from dpmed.planning.run_ledger import CHOSEN_BY_VALIDATION, run_ledger
from dpmed.privacy.cohort.file import Cohort
from dpmed.privacy.selection import tuning_cost
from dpmed.privacy.several import composed_epsilon
from dpmed.progress import Silent
from dpmed.workflows.train import run as train
from dpmed.workflows.train.run_folder import create_run_folder
from dpmed.workflows.train.several import drawn_trials
from dpmed.workflows.train.several import selection as room
from dpmed.workflows.train.several.selection import run
from dpmed.workflows.train.stated import run_id_of
from dpmed.workflows.train.trials import note_begun
from tests.workflows.conftest import call_here

SETTINGS = ["data.limit=100", "training.batch_size=20", "training.epochs=2", "model.width=[4]"]


class Interrupted(Exception):
    pass


@pytest.fixture
def trainings(monkeypatch):
    """Trainings that only write what a selection reads; the one with number `broken` fails when it begins."""
    made = {"plans": [], "broken": None, "resumed": 7}

    def begin(plan, folder, progress, **_):
        del progress
        enrol([(plan, folder / "checkpoints")], Silent())
        made["plans"].append(plan)
        create_run_folder(folder, plan)
        number = len(made["plans"])
        ledger = run_ledger(plan, draws=plan.steps, status="finished").to_json()
        note_begun(folder, ledger)
        if number == made["broken"]:
            # As after a crash, with more draws than planned.
            (folder / "privacy.json").write_text(json.dumps({**ledger, "status": "running", "steps": 7}))
            raise Interrupted
        write_end(folder, ledger, score=0.1 * (5 - abs(number - 2)))

    def go_on(folder, progress, *, plan, **_):
        del progress
        plan = replace(plan, facts=replace(plan.facts, run_id=run_id_of(folder) or plan.facts.run_id))
        ledger = run_ledger(plan, draws=made["resumed"], status="finished").to_json()
        note_begun(folder, ledger)
        write_end(folder, ledger, score=0.05)

    def write_end(folder, ledger, *, score):
        (folder / "privacy.json").write_text(json.dumps(ledger))
        rows = f"epoch,step,split,accuracy\n1,5,validation,0.9\n2,10,validation,{score}\n2,10,test,0.99\n"
        (folder / "metrics.csv").write_text(rows)
        (folder / "summary.json").write_text(json.dumps({"test": {"accuracy": 0.99}}))

    monkeypatch.setattr(train, "run", begin)
    monkeypatch.setattr(train, "resume", go_on)
    return made


def test_trials_are_drawn_once_and_the_best_by_validation_is_chosen(tmp_path, trainings, monkeypatch):
    config = load_config("quickstart", [*SETTINGS, f"privacy.cohort={tmp_path / 'cohort.db'}"]).config
    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.setattr(drawn_trials, "draw_trials", lambda mean: 4)
    trainings["broken"] = 3
    with pytest.raises(Interrupted):
        run(config, folder, Silent(), mean=10)
    with Cohort(tmp_path / "cohort.db") as cohort:
        # All trials are enrolled before the first begins, so a crash leaves everything that was planned.
        assert len(cohort.snapshot().runs) == 4
    ledger = json.loads((folder / "privacy.json").read_text())
    assert ledger["status"] == "running"
    monkeypatch.setattr(drawn_trials, "draw_trials", lambda mean: pytest.fail("the number of trials was drawn again"))
    trainings["broken"] = None
    summary = run(config, folder, Silent(), mean=10)
    plans = trainings["plans"]
    assert len({plan.config.training.seed for plan in plans}) == 4
    assert all(plan.split.to_json() == plans[0].split.to_json() for plan in plans)
    assert all(
        "best of a random number" in plan.facts.notes[-1] and CHOSEN_BY_VALIDATION in plan.facts.outside
        for plan in plans
    )
    # The second has the best last validation score: neither an earlier one nor the test decides.
    assert summary.best.parent.name == "trial=2" and summary.scores[summary.best.relative_to(folder).as_posix()] == 0.5
    # The third made seven draws, and all trials are counted as if they had.
    ledger = json.loads((folder / "privacy.json").read_text())
    rates = {name: ledger[name] for name in ("noise_multiplier", "sampling_rate")}
    longest = replace(plans[0].budget.mechanism, **rates, steps=7)
    assert plans[0].steps < 7
    cost = tuning_cost((longest,) * 10, delta=ledger["delta"])
    assert ledger["epsilon"] == ledger["epsilon_select"] == cost.by_selection < ledger["epsilon_plain"]
    # Nothing in the ledger tells how many trials there were.
    again = json.dumps({**ledger, "created": None})
    monkeypatch.setattr(drawn_trials, "draw_trials", lambda mean: 2)
    other = tmp_path / "other"
    other.mkdir()
    run(load_config("quickstart", [*SETTINGS, f"privacy.cohort={tmp_path / 'b.db'}"]).config, other, Silent(), mean=10)
    assert json.loads((other / "privacy.json").read_text()).keys() == json.loads(again).keys()
    assert "trial=" not in again and "runs" not in ledger
    best = json.loads((summary.best / "privacy.json").read_text())
    # Nor do the ledgers of the best and of the folder together: not even how long the trials after it took.
    assert best["created"] == ledger["created"]
    # Each trial's own ledger states what releasing the best costs, and only that of the best admits a release.
    for name in summary.scores:
        own = read_ledger(folder / name / "privacy.json")
        assert own.epsilon == own.selection.epsilon == cost.by_selection
        reason = own.reason_against_release
        assert (reason is None) == (folder / name == summary.best)
        assert reason is None or "one trial of a selection" in reason


def test_where_composition_costs_less_exactly_so_many_are_made(tmp_path, trainings):
    config = load_config("quickstart", [*SETTINGS, "privacy.epsilon=1"]).config
    summary = run(config, tmp_path, Silent(), mean=2)
    assert len(trainings["plans"]) == 2 and not summary.cost.is_random
    assert summary.cost.epsilon == pytest.approx(summary.epsilon_all)
    with pytest.raises(InputError, match="another mean"):
        run(config, tmp_path, Silent(), mean=3)


@pytest.mark.parametrize("settings", [["privacy="], ["privacy.noise_source=seeded"]])
def test_it_needs_secret_noise(tmp_path, settings):
    with pytest.raises(InputError, match="needs a private config"):
        run(load_config("quickstart", [*SETTINGS, *settings]).config, tmp_path, Silent(), mean=5)


def test_drawn_trials_that_were_tampered_with_are_refused(tmp_path, trainings):
    config = load_config("quickstart", [*SETTINGS, "privacy.epsilon=1"]).config
    run(config, tmp_path, Silent(), mean=2)
    path = tmp_path / "selection.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seeds": [-1]}))
    with pytest.raises(InputError, match="does not say which trials"):
        run(config, tmp_path, Silent(), mean=2)


@pytest.mark.parametrize("is_random", [True, False])
def test_settings_are_fixed_first_and_the_dearest_counts(tmp_path, trainings, monkeypatch, is_random):
    config = load_config("quickstart", [*SETTINGS, f"privacy.epsilon={8 if is_random else 1}"]).config
    few, many = (
        Setting(
            batch_size=size, epochs=epochs, learning_rate=rate, clipping_norm=0.5, epsilon=8.0 if is_random else 1.0
        )
        for size, epochs, rate in ((20, 2, 0.01), (40, 4, 0.03))
    )
    settings = (few, many) * 4 if is_random else (few, many)
    monkeypatch.setattr(drawn_trials, "draw_trials", lambda mean: 3)
    # The number of settings counts, whatever else is given.
    summary = run(config, tmp_path, Silent(), mean=100, settings=settings)
    plans = trainings["plans"]
    kept = json.loads((tmp_path / "selection.json").read_text())
    assert kept["mean_trials"] == len(settings) and len(plans) == len(kept["candidates"]) == (3 if is_random else 2)
    assert is_random or kept["candidates"] == [0, 1]
    for plan, candidate in zip(plans, kept["candidates"], strict=True):
        assert plan.config.training.batch_size == settings[candidate].batch_size
        assert plan.config.optimizer.learning_rate == settings[candidate].learning_rate
    mechanisms = {plan.steps: plan.budget.mechanism for plan in plans}
    ledger = json.loads((tmp_path / "privacy.json").read_text())
    for mechanism in mechanisms.values():
        cost = tuning_cost((mechanism,) * len(settings), delta=ledger["delta"])
        assert ledger["epsilon_select"] >= cost.by_selection * (1 - 1e-12)
    assert ledger["selection"]["distribution"] == ("geometric" if is_random else "fixed")
    assert ledger["selection"]["chosen_setting"] == kept["candidates"][list(summary.scores).index(kept_name(summary))]
    assert "candidates" not in ledger and summary.to_json()["tuned_on"] == "training data"
    lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert lines[0] == "trial,batch_size,epochs,learning_rate,clipping_norm,validation_accuracy"
    assert len(lines) == 1 + len(plans)
    with pytest.raises(InputError, match="another config"):
        run(config, tmp_path, Silent(), mean=len(settings), settings=(few, few, *settings[2:]))


def test_the_cost_is_that_of_the_number_that_was_drawn_even_where_the_other_became_cheaper(tmp_path, trainings):
    # Five draws more than planned, and a random number of trials would have been cheaper than exactly three.
    config = load_config("quickstart", [*SETTINGS, "privacy.epsilon=3"]).config
    trainings["broken"] = 1
    with pytest.raises(Interrupted):
        run(config, tmp_path, Silent(), mean=3)
    assert json.loads((tmp_path / "selection.json").read_text())["distribution"] == "fixed"
    trainings["resumed"] = 200
    summary = run(config, tmp_path, Silent(), mean=3)
    assert summary.cost.by_selection < summary.cost.by_composition
    assert json.loads((tmp_path / "privacy.json").read_text())["epsilon"] == summary.cost.by_composition


def kept_name(summary):
    return summary.best.relative_to(summary.folder).as_posix()


def test_settings_are_drawn_uniformly_by_the_system(tmp_path, trainings, monkeypatch):
    config = load_config("quickstart", SETTINGS).config
    one = Setting(batch_size=20, epochs=2, learning_rate=0.01, clipping_norm=0.5, epsilon=8.0)
    settings = tuple(replace(one, learning_rate=0.01 * k) for k in range(1, 9))
    candidates = room._candidates(config, Silent(), mean=8, settings=settings)
    monkeypatch.setattr(drawn_trials, "draw_trials", lambda mean: 4000)
    drawn = room._drawn(candidates, tmp_path).candidates
    # Fails by chance in one of a million runs.
    assert stats.chisquare(np.bincount(drawn, minlength=8)).pvalue > 1e-6


FIXED, RANDOM = "privacy.epsilon=1", "privacy.epsilon=8"


def select(folder, setting, *, mean=2, settings=()):
    folder.mkdir(exist_ok=True)
    return run(load_config("quickstart", [*SETTINGS, setting]).config, folder, Silent(), mean=mean, settings=settings)


def only_trial(folder, number):
    (found,) = folder.glob(f"trial={number}/seed=*")
    return found


def delete(trial):
    shutil.rmtree(trial.parent)


def empty(trial):
    shutil.rmtree(trial)
    trial.mkdir()


def lose_ledger(trial):
    (trial / "privacy.json").unlink()


def stated(folder):
    ledger = json.loads((folder / "privacy.json").read_text())
    return ledger["epsilon"], ledger["selection"]["mean_trials"], ledger["selection"]["distribution"]


@pytest.mark.parametrize("lose", [delete, empty])
def test_a_deleted_trial_of_a_fixed_number_counts_beside_the_one_in_its_place(tmp_path, trainings, lose):
    alone = select(tmp_path, FIXED).cost.epsilon
    kept = only_trial(tmp_path, 2)
    for times in (1, 2):
        lose(only_trial(tmp_path, 1))
        summary = select(tmp_path, FIXED)
        mechanisms = [plan.budget.mechanism for plan in trainings["plans"]]
        assert len(mechanisms) == 2 + times and summary.deleted == times
        assert stated(tmp_path) == (composed_epsilon(mechanisms, 1e-5), 2 + times, "fixed")
        assert summary.epsilon_all == summary.cost.epsilon > 1.2 * alone
        assert f"exactly 2 trials and {times} more, now deleted" in summary.words()
        # Also of a trial that was there all the time, and may be the one that is released.
        assert stated(kept)[:2] == stated(tmp_path)[:2] and read_ledger(kept / "privacy.json").promises
        (note,) = [one for one in json.loads((kept / "privacy.json").read_text())["notes"] if "trials together" in one]
        assert f"the {2 + times} trials together" in note
        assert (
            f"deleted count too, since somebody may have seen them: {times}." in (tmp_path / "privacy.json").read_text()
        )


def test_a_trial_that_was_deleted_before_it_finished_counts_too_and_before_another_is_made(tmp_path, trainings):
    trainings["broken"] = 2
    with pytest.raises(Interrupted):
        select(tmp_path, FIXED)
    delete(only_trial(tmp_path, 2))
    trainings["broken"] = 3
    with pytest.raises(Interrupted):
        select(tmp_path, FIXED)
    # The first, finished, could be released now.
    assert stated(only_trial(tmp_path, 1))[:2] == stated(tmp_path)[:2]
    assert stated(tmp_path)[1] == 3
    trainings["broken"] = None
    assert select(tmp_path, FIXED).deleted == 1


def test_draws_beyond_the_plan_count_beside_a_deleted_trial(tmp_path, trainings):
    trainings["broken"] = 1
    with pytest.raises(Interrupted):
        select(tmp_path, FIXED)
    trainings["broken"] = None
    select(tmp_path, FIXED)
    delete(only_trial(tmp_path, 2))
    assert select(tmp_path, FIXED).deleted == 1
    planned = trainings["plans"][0].budget.mechanism
    assert planned.steps < trainings["resumed"]
    # Each of the two that are there counts as if it had made as many draws as the one that was interrupted.
    longer = replace(planned, steps=trainings["resumed"])
    assert stated(tmp_path)[0] == composed_epsilon([longer, longer, planned], 1e-5)


@pytest.mark.parametrize("setting", [FIXED, RANDOM])
@pytest.mark.parametrize("is_finished", [True, False])
def test_a_trial_that_was_moved_and_put_back_counts_once(tmp_path, trainings, monkeypatch, setting, is_finished):
    monkeypatch.setattr(drawn_trials, "draw_trials", lambda mean: 2)
    folder = tmp_path / "selection"
    mean = 2 if setting == FIXED else 10
    trainings["broken"] = None if is_finished else 2
    if is_finished:
        select(folder, setting, mean=mean)
    else:
        with pytest.raises(Interrupted):
            select(folder, setting, mean=mean)
    trial = only_trial(folder, 2).parent
    shutil.move(trial, tmp_path / "elsewhere")
    if setting == RANDOM:
        with pytest.raises(InputError, match="are gone: trial=2"):
            select(folder, setting, mean=mean)
    shutil.move(tmp_path / "elsewhere", trial)
    summary = select(folder, setting, mean=mean)
    assert summary.deleted == 0 and len(trainings["plans"]) == 2


@pytest.mark.parametrize("broken", [None, 3])
@pytest.mark.parametrize("lose", [delete, empty, lose_ledger])
@pytest.mark.parametrize("is_tuned", [False, True])
def test_no_trial_of_a_random_number_is_made_twice(tmp_path, trainings, monkeypatch, broken, lose, is_tuned):
    monkeypatch.setattr(drawn_trials, "draw_trials", lambda mean: 3)
    one = Setting(batch_size=20, epochs=2, learning_rate=0.01, clipping_norm=0.5, epsilon=8.0)
    settings = tuple(replace(one, learning_rate=0.01 * k) for k in range(1, 9)) if is_tuned else ()
    trainings["broken"] = broken
    if broken is None:
        select(tmp_path, RANDOM, mean=8, settings=settings)
    else:
        with pytest.raises(Interrupted):
            select(tmp_path, RANDOM, mean=8, settings=settings)
    lose(only_trial(tmp_path, 3))
    with pytest.raises(
        InputError, match=r"are gone: trial=3/seed=.*holds only if none of them is made twice"
    ) as refused:
        select(tmp_path, RANDOM, mean=8, settings=settings)
    assert "Put them back" in refused.value.remedy and len(trainings["plans"]) == 3


def test_a_trial_that_had_made_no_draw_is_made(tmp_path, trainings, monkeypatch):
    monkeypatch.setattr(drawn_trials, "draw_trials", lambda mean: 2)
    trainings["broken"] = 2
    with pytest.raises(Interrupted):
        select(tmp_path, RANDOM, mean=8)
    # As if it had been killed, or stopped, before its ledger was on the disk.
    content = json.loads((tmp_path / "selection.json").read_text())
    (tmp_path / "selection.json").write_text(json.dumps({**content, "begun": content["begun"][:1]}))
    lose_ledger(only_trial(tmp_path, 2))
    assert len(select(tmp_path, RANDOM, mean=8).scores) == 2


def test_trials_without_the_file_that_says_which_were_drawn_are_refused(tmp_path, trainings):
    select(tmp_path, FIXED)
    (tmp_path / "selection.json").unlink()
    with pytest.raises(InputError, match="is missing, although trials were made here") as refused:
        select(tmp_path, FIXED)
    assert "another folder" in refused.value.remedy and len(trainings["plans"]) == 2


def test_a_selection_of_an_earlier_version_keeps_what_it_finds(tmp_path, trainings):
    select(tmp_path, FIXED)
    path = tmp_path / "selection.json"
    content = json.loads(path.read_text())
    del content["begun"]
    path.write_text(json.dumps(content))
    select(tmp_path, FIXED)
    delete(only_trial(tmp_path, 1))
    assert select(tmp_path, FIXED).deleted == 1


def test_a_user_who_deletes_a_trial_is_told_that_it_stays_counted(tmp_path, trainings):
    folder = tmp_path / "selection"
    words = ["train", "quickstart", "--select", 2, "--out", folder]
    words += [word for setting in (*SETTINGS, FIXED) for word in ("--set", setting)]
    assert call_here(*words).returncode == 0
    delete(only_trial(folder, 1))
    again = call_here(*words)
    assert again.returncode == 0 and "still counted: trial=1/seed=" in again.stderr
    assert "exactly 2 trials and 1 more, now deleted. ε covers all of them." in again.stdout
    (folder / "selection.json").unlink()
    lost = call_here(*words)
    assert lost.returncode == 2 and "although trials were made here" in lost.stderr
