"""Several runs: made once, resumed where they were interrupted, summarised, and counted together before they begin."""

import csv
import json
import shutil
import statistics
from dataclasses import replace

import pytest

from dpmed.config.load import load_config
from dpmed.errors import InputError
from dpmed.files import exclusive_lock
from dpmed.inference.composed_ledger import compose, spending
from dpmed.planning.run_ledger import run_ledger
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.several import composed_epsilon
from dpmed.progress import Silent
from dpmed.workflows.train import run as train
from dpmed.workflows.train.run_folder import create_run_folder
from dpmed.workflows.train.several import repeats as room
from dpmed.workflows.train.several.repeats import RepeatsSummary, holds_repeats, repeats_of, run
from tests.workflows.conftest import SMALL, call_here

TINY = [*SMALL, "--set", "training.epochs=2", "--set", "evaluation.every_epochs=2"]


def ledger_of(folder):
    return json.loads((folder / "privacy.json").read_text())


def mechanism_of(ledger):
    return SampledGaussian(
        noise_multiplier=ledger["noise_multiplier"], sampling_rate=ledger["sampling_rate"], steps=ledger["steps"]
    )


@pytest.mark.slow
def test_seeds_are_run_once_summed_up_and_counted_together(tmp_path):
    folder = tmp_path / "runs"
    first = call_here("train", "quickstart", *TINY, "--seeds", "10,11", "--out", folder)
    assert first.returncode == 0, first.stderr
    weights = (folder / "seed=10" / "model.eqx").read_bytes()
    both = ledger_of(folder)
    runs = [ledger_of(folder / f"seed={seed}") for seed in (10, 11)]
    assert both["epsilon"] == both["epsilon_pld"] == composed_epsilon(list(map(mechanism_of, runs)), both["delta"])
    assert both["epsilon"] > runs[0]["epsilon"]
    assert both["private"] is True and both["status"] == "finished"
    assert [run["siblings"] for run in runs] == [["seed=11"], ["seed=10"]]
    assert all("composed ε" in run["notes"][-1] for run in runs)
    (folder / "seed=11" / "summary.json").unlink()
    again = call_here("train", "quickstart", *TINY, "--seeds", "11,12", "--out", folder, "--json")
    assert again.returncode == 0, again.stderr
    assert (folder / "seed=10" / "model.eqx").read_bytes() == weights
    # Runs of the earlier call count, although this one does not name them all.
    runs = [ledger_of(folder / f"seed={seed}") for seed in (10, 11, 12)]
    summary = json.loads(again.stdout)
    assert summary["epsilon_composed"] == ledger_of(folder)["epsilon"] == pytest.approx(
        composed_epsilon(list(map(mechanism_of, runs)), 1e-5), rel=1e-12
    )  # fmt: skip
    assert summary["runs_composed"] == 3
    assert summary["epsilon_per_run"] == max(run["epsilon"] for run in runs[1:])
    assert runs[0]["siblings"] == ["seed=11", "seed=12"]
    accuracies = [
        json.loads((folder / f"seed={seed}" / "summary.json").read_text())["test"]["accuracy"] for seed in (11, 12)
    ]
    assert summary["test"]["accuracy"]["mean"] == pytest.approx(statistics.fmean(accuracies))
    assert summary["test"]["accuracy"]["std"] == pytest.approx(statistics.stdev(accuracies))
    other = call_here("train", "quickstart", *TINY, "--set", "privacy.epsilon=2", "--seeds", "10", "--out", folder)
    assert other.returncode == 2
    assert "another config" in other.stderr


@pytest.mark.slow
def test_levels_are_run_once_and_drawn_with_the_line_without_privacy(tmp_path):
    folder = tmp_path / "sweep"
    first = call_here("train", "quickstart", *TINY, "--set", "privacy.epsilon=1,8", "--out", folder)
    assert first.returncode == 0, first.stderr
    assert "Together the 2 private runs" in first.stdout
    rows = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))
    assert [row["level"] for row in rows] == ["1", "8", "non-private"]
    assert [row["epsilon"] for row in rows] == ["1.0", "8.0", ""]
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)
    for ending in ("png", "pdf", "svg", "json"):
        assert (folder / f"sweep.{ending}").stat().st_size > 500
    together = ledger_of(folder)
    runs = [ledger_of(folder / f"epsilon={level}" / "seed=10") for level in (1, 8)]
    assert together["private"] is False
    assert together["epsilon"] == composed_epsilon(list(map(mechanism_of, runs)), together["delta"])
    assert 8 < together["epsilon"] < 1 + 8
    assert ledger_of(folder / "non-private" / "seed=10")["siblings"] == ["epsilon=1/seed=10", "epsilon=8/seed=10"]
    weights = (folder / "epsilon=8" / "seed=10" / "model.eqx").read_bytes()
    again = call_here("train", "quickstart", *TINY, "--epsilons", "1,8", "--out", folder)
    assert again.returncode == 0, again.stderr
    assert (folder / "epsilon=8" / "seed=10" / "model.eqx").read_bytes() == weights
    inside = call_here("train", "quickstart", *TINY, "--seeds", "12", "--out", folder / "epsilon=8")
    assert inside.returncode == 2 and "part of a sweep" in inside.stderr


CONFIG = ["data.limit=100", "training.batch_size=20", "training.epochs=2", "model.width=[4]"]


class Interrupted(Exception):
    pass


def interrupted(runs, progress):
    raise Interrupted


def test_a_run_is_counted_before_it_begins_and_when_it_breaks_off(tmp_path, monkeypatch):
    config = load_config("quickstart", CONFIG).config
    seen = []

    def begin(plan, folder, progress, **_):
        del progress
        seen.append(ledger_of(tmp_path))
        assert plan.facts.siblings == (("seed=2",) if folder.name == "seed=1" else ("seed=1",))
        create_run_folder(folder, plan)
        finished = folder.name == "seed=1"
        ledger = run_ledger(plan, draws=plan.steps if finished else 1, status="finished" if finished else "running")
        (folder / "privacy.json").write_text(json.dumps(ledger.to_json()))
        if not finished:
            raise Interrupted
        summary = {"test": {"accuracy": 0.5}, "epsilon": ledger.epsilon, "main_metric": "accuracy"}
        (folder / "summary.json").write_text(json.dumps(summary))

    monkeypatch.setattr(train, "run", begin)
    with pytest.raises(Interrupted):
        run(repeats_of(config, seeds=(1, 2)), tmp_path, Silent())
    assert [[one["folder"] for one in ledger["runs"]] for ledger in seen] == [["seed=1"], ["seed=1", "seed=2"]]
    left = ledger_of(tmp_path)
    assert left["status"] == "running"
    assert [one["steps_counted"] for one in left["runs"]] == [6, 6]
    assert left["epsilon"] == seen[1]["epsilon"] > seen[0]["epsilon"]
    assert holds_repeats(tmp_path) and not holds_repeats(tmp_path / "nowhere")
    # What breaks off before its run begins has changed nothing, so nothing is composed again.
    monkeypatch.setattr(room, "compose", lambda runs: pytest.fail("composed again"))
    monkeypatch.setattr(room, "enrol_missing", interrupted)
    with pytest.raises(Interrupted):
        run(repeats_of(config, seeds=(1, 2)), tmp_path, Silent())
    assert ledger_of(tmp_path) == left


def test_a_run_of_a_sweep_is_not_resumed_beside_the_sweep_whose_ledger_it_would_rewrite(tmp_path):
    def begin(plan):
        create_run_folder(tmp_path / "seed=1", plan)
        raise Interrupted

    config = load_config("quickstart", CONFIG).config
    with pytest.raises(Interrupted), pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "run", lambda plan, *_, **__: begin(plan))
        run(repeats_of(config, seeds=(1,)), tmp_path, Silent())
    before = ledger_of(tmp_path)
    with exclusive_lock(tmp_path / "lock"):
        found = call_here("train", "--resume", tmp_path / "seed=1")
    assert found.returncode == 2 and f"{tmp_path}: another dpmed process" in found.stderr.replace("\n", " ")
    assert ledger_of(tmp_path) == before and not (tmp_path / "seed=1" / "privacy.json").exists()

    def go_on(*_):
        with pytest.raises(InputError, match="another dpmed process"), exclusive_lock(tmp_path / "lock"):
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_train", go_on)
        assert call_here("train", "--resume", tmp_path / "seed=1").returncode == 0


@pytest.mark.slow
def test_a_deleted_run_counts_besides_the_one_that_takes_its_place(tmp_path):
    folder, cohort = tmp_path / "runs", tmp_path / "cohort.sqlite"
    call = ("train", "quickstart", *TINY, "--set", f"privacy.cohort={cohort}", "--seeds", "10,11", "--out", folder)
    first = call_here(*call)
    assert first.returncode == 0, first.stderr
    before = ledger_of(folder)
    shutil.rmtree(folder / "seed=11")
    again = call_here(*call)
    assert again.returncode == 0, again.stderr
    assert "Together the 3 private runs in this folder, 1 of which was deleted, spend" in again.stdout
    after = ledger_of(folder)
    assert [run["status"] for run in after["runs"] if run["folder"] == "seed=11"] == ["finished", "deleted"]
    assert after["epsilon"] > before["epsilon"]
    exported = call_here("export", folder / "seed=10", "--out", tmp_path / "bundle", "--json")
    assert json.loads(exported.stdout)["epsilon_if_chosen"] == after["epsilon"]


def test_the_joint_epsilon_is_never_rounded_down(tmp_path):
    ledger = {
        "private": True, "status": "finished", "epsilon": 8.0, "delta": 1e-5, "accountant": "pld",
        "noise_multiplier": 4.0, "sampling_rate": 1.0, "steps": 10, "steps_planned": 10, "unit_of_privacy": "image",
        "noise_source": "os-entropy", "outside_accounting": [], "notes": [],
    }  # fmt: skip
    composed = compose([spending(name, ledger, where=name) for name in ("seed=1", "seed=2")])
    summary = RepeatsSummary(
        folder=tmp_path, levels=(), is_sweep=False, metric="accuracy", composed=replace(composed, epsilon_pld=12.9701)
    )
    assert "Together the 2 private runs in this folder spend ε = 12.98 at δ = 1e-05." in summary.cost()


def test_the_runs_of_a_sweep_follow_from_one_config():
    config = load_config("quickstart", [*CONFIG, "training.microbatch=7"]).config
    repeats = repeats_of(config, seeds=(1, 2), epsilons=(8.0, 1.0))
    assert [repeat.name for repeat in repeats] == [
        "epsilon=1/seed=1", "epsilon=1/seed=2", "epsilon=8/seed=1", "epsilon=8/seed=2", "non-private/seed=1",
        "non-private/seed=2",
    ]  # fmt: skip
    assert [repeat.config.privacy and repeat.config.privacy.epsilon for repeat in repeats] == [1, 1, 8, 8, None, None]
    assert [repeat.config.training.microbatch for repeat in repeats] == [7, 7, 7, 7, "auto", "auto"]
    assert [repeat.name for repeat in repeats_of(config, seeds=(3,))] == ["seed=3"]


@pytest.mark.parametrize("settings", [["privacy="], ["privacy.noise_multiplier=1", "training.epochs="]])
def test_a_sweep_needs_privacy_and_a_length(settings):
    with pytest.raises(InputError, match="private config") as caught:
        repeats_of(load_config("quickstart", settings).config, epsilons=(1.0,))
    assert caught.value.where == "epsilons"
