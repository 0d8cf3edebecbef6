"""Whole small runs on real images: what they write, what they promise, and what a crash does to them."""

import csv
import json
import random
import shutil
import signal
import stat
from dataclasses import replace

import numpy as np
import pytest

from dpmed.config.load import load_config
from dpmed.planning.plan import make_plan
from dpmed.privacy.accountant import SampledGaussian, epsilon
from dpmed.progress import Silent
from dpmed.training.checkpoint import DrawJournal
from dpmed.workflows.train import run as run_room
from dpmed.workflows.train.run import _fingerprint
from tests.workflows.conftest import SEEDED, SMALL, call, call_here, kill_at, steps_saved
from tests.workflows.train.test_kept_split import Renamed


def ledger_of(folder):
    return json.loads((folder / "privacy.json").read_text())


def test_processes_that_know_other_units_or_names_do_not_train_together():
    plan = make_plan(load_config("quickstart", ["data.limit=120", "training.batch_size=16"]).config, Silent())
    groups, names = [str(number // 2) for number in range(120)], [f"{number}.png" for number in range(120)]
    datasets = (Renamed(plan.dataset, *given) for given in ((groups, names), (names, names), (groups, names[::-1])))
    found = [_fingerprint(replace(plan, dataset=dataset)) for dataset in datasets]
    assert len(set(found)) == len(found)
    assert _fingerprint(plan) == _fingerprint(plan) not in found


def test_a_process_alone_compares_its_samples_with_nobodys(tmp_path, monkeypatch):
    # For 200,000 samples that took 3 s.
    monkeypatch.setattr(run_room, "_fingerprint", lambda _: pytest.fail("computed for nobody"))
    tiny = ["--set", "data.limit=60", "--set", "training.batch_size=16", "--set", "training.epochs=1"]
    done = call_here("train", "quickstart", *tiny, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr


def test_a_run_folder_holds_what_the_contract_names(small_run):
    names = {path.name for path in small_run.iterdir()}
    assert names >= {
        "config.toml",
        "privacy.json",
        "metrics.csv",
        "summary.json",
        "model.eqx",
        "curves.png",
        "checkpoints",
    }
    assert (small_run / "curves.png").stat().st_size > 10_000
    for path in (small_run, small_run / "model.eqx", small_run / "checkpoints", small_run / "curves.png"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_the_ledger_states_what_was_spent(small_run):
    ledger = ledger_of(small_run)
    mechanism = SampledGaussian(
        noise_multiplier=ledger["noise_multiplier"], sampling_rate=ledger["sampling_rate"], steps=ledger["steps"]
    )
    assert ledger["private"] is True
    assert ledger["epsilon"] == ledger["epsilon_pld"] == epsilon(mechanism, ledger["delta"])
    assert 0.99 * 8 <= ledger["epsilon"] <= 8
    assert ledger["epsilon_rdp"] > ledger["epsilon_pld"]
    assert ledger["steps"] == ledger["steps_planned"] == 40
    assert ledger["sampling_rate"] == 64 / ledger["train_size"]
    assert (ledger["sampling"], ledger["adjacency"], ledger["unit_of_privacy"]) == (
        "poisson",
        "add-or-remove-one",
        "image",
    )
    assert ledger["noise_source"] == ledger["sampling_source"] == "os-entropy"
    assert (ledger["clipping"], ledger["clipping_norm"], ledger["clipping_count_noise"]) == ("flat", 0.5, None)
    text = " ".join(ledger["outside_accounting"])
    for word in ("training loss", "non-finite", "validation and test", "records of a step"):
        assert word.lower() in text.lower()


def test_metrics_have_a_row_per_evaluation_and_a_test_row(small_run):
    with (small_run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == ["epoch", "step", "epsilon", "split", "loss"]
    assert [(row["split"], row["step"]) for row in rows] == [
        ("train", "20"), ("validation", "20"), ("train", "40"), ("validation", "40"), ("test", "40"),
    ]  # fmt: skip
    spent = [float(row["epsilon"]) for row in rows]
    assert spent == sorted(spent)


def test_the_summary_has_test_metrics_and_versions(small_run):
    summary = json.loads((small_run / "summary.json").read_text())
    assert 0.3 < summary["test"]["accuracy"] <= 1
    assert summary["epsilon"] == ledger_of(small_run)["epsilon"]
    assert summary["versions"]["jax"]


@pytest.mark.parametrize("kind", ["automatic", "per-layer"])
def test_other_clippings_train_and_the_ledger_names_them(tmp_path, kind):
    done = call_here("train", "quickstart", *SMALL, "--set", f"privacy.clipping={kind}", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    ledger = ledger_of(tmp_path / "run")
    assert (ledger["clipping"], ledger["clipping_norm"], ledger["clipping_count_noise"]) == (kind, 0.5, None)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["test"]["accuracy"] > 0.3


def test_adaptive_clipping_costs_no_more_than_planned_and_a_resume_has_the_same_norm(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    adaptive = ["train", "quickstart", *SMALL, *SEEDED, "--set", "privacy.clipping=adaptive", "--out"]
    assert call(*adaptive, whole).returncode == 0
    ledger = ledger_of(whole)
    assert (ledger["clipping"], ledger["clipping_norm"], ledger["clipping_count_noise"]) == ("adaptive", 0.5, 64 / 20)
    assert 0.99 * 8 <= ledger["epsilon"] <= 8
    assert "clipping norm is adapted" in " ".join(ledger["notes"])
    with (whole / "metrics.csv").open() as file:
        norms = [float(row["clipping_norm"]) for row in csv.DictReader(file) if row["split"] == "train"]
    assert len(set(norms)) == len(norms) == 2
    kill_at(broken, 6, *adaptive, broken)
    assert call("train", "--resume", broken).returncode == 0
    assert (broken / "model.eqx").read_bytes() == (whole / "model.eqx").read_bytes()
    assert (broken / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def test_without_privacy_the_ledger_promises_nothing(tmp_path):
    done = call_here("train", "quickstart_nonprivate", *SMALL, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    ledger = ledger_of(tmp_path / "run")
    assert ledger["private"] is False
    assert ledger["epsilon"] is None
    assert "not private" in ledger["outside_accounting"][0]


def test_runs_with_one_seed_are_alike_and_release_runs_are_not(tmp_path, small_run, seeded_run):
    assert call("train", "quickstart", *SMALL, *SEEDED, "--out", tmp_path / "b").returncode == 0
    same = [(folder / "model.eqx").read_bytes() for folder in (seeded_run, tmp_path / "b")]
    assert same[0] == same[1]
    assert "seed can remove the noise" in " ".join(ledger_of(seeded_run)["notes"])
    assert call_here("train", "quickstart", *SMALL, "--out", tmp_path / "c").returncode == 0
    assert (tmp_path / "c" / "model.eqx").read_bytes() != (small_run / "model.eqx").read_bytes()


def test_a_killed_seeded_run_resumes_to_the_same_bits_and_the_same_epsilon(tmp_path, seeded_run):
    whole, broken = seeded_run, tmp_path / "broken"
    generator = random.Random(0)
    kill_at(broken, generator.randrange(0, 6), "train", "quickstart", *SMALL, *SEEDED, "--out", broken)
    kill_at(broken, steps_saved(broken) + generator.randrange(4, 12), "train", "--resume", broken)
    done = call("train", "--resume", broken)
    assert done.returncode == 0, done.stderr
    assert (broken / "model.eqx").read_bytes() == (whole / "model.eqx").read_bytes()
    assert ledger_of(broken)["epsilon"] == ledger_of(whole)["epsilon"]
    assert (broken / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def weights(path):
    found = []
    with path.open("rb") as file:
        while file.peek(1):
            found.append(np.load(file, allow_pickle=False).ravel())
    return np.concatenate(found)


def test_a_run_begun_on_eight_devices_ends_on_one_with_the_weights_of_one(tmp_path, seeded_run):
    whole, moved = seeded_run, tmp_path / "moved"
    kill_at(moved, 10, "train", "quickstart", *SMALL, *SEEDED, "--out", moved, devices=8)
    assert 10 <= steps_saved(moved)
    done = call("train", "--resume", moved)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(weights(moved / "model.eqx"), weights(whole / "model.eqx"), rtol=1e-3, atol=1e-4)
    assert ledger_of(moved)["epsilon"] == ledger_of(whole)["epsilon"]
    seen = [
        [row["records"] for row in csv.DictReader((run / "metrics.csv").read_text().splitlines())]
        for run in (whole, moved)
    ]
    assert seen[0] == seen[1]


def test_a_killed_release_run_counts_redone_steps_and_never_passes_the_budget(tmp_path):
    folder = tmp_path / "run"
    arguments = ["train", "quickstart", *SMALL, "--set", "training.checkpoint_steps=7", "--out", folder]
    kill_at(folder, 7, *arguments)
    begun = DrawJournal(folder / "checkpoints" / "draws").draws
    before = ledger_of(folder)
    assert before["steps"] >= begun
    done = call_here("train", "--resume", folder)
    assert done.returncode == 0, done.stderr
    ledger, summary = ledger_of(folder), json.loads((folder / "summary.json").read_text())
    assert ledger["steps"] == ledger["steps_planned"]
    assert ledger["run_id"] == before["run_id"]
    assert ledger["epsilon"] <= 8
    assert summary["steps"] <= ledger["steps"]
    saved = [path.name for path in (folder / "checkpoints").iterdir()]
    assert not any("key" in name or "batch" in name for name in saved)


def test_ctrl_c_stops_after_the_step_with_a_checkpoint_and_says_how_to_go_on(tmp_path):
    folder = tmp_path / "run"
    arguments = ["train", "quickstart", *SMALL, *SEEDED, "--set", "training.epochs=4000", "--out", folder]
    assert kill_at(folder, 3, *arguments, signal_number=signal.SIGINT) == 1
    ledger = ledger_of(folder)
    assert ledger["status"] == "stopped"
    assert ledger["steps"] == steps_saved(folder)
    assert "if what the run had shown was no reason to stop" in " ".join(ledger["notes"])


def signalled(folder, monkeypatch, *numbers, before=lambda number, frame: None):
    """A run in this process that gets signals when its third draw has been put on record.

    `before` is what handles SIGHUP without the run: by default, nothing that would end the tests.
    """
    begin = DrawJournal.begin

    def begin_and_signal(journal, draws):
        begin(journal, draws)
        if draws == 3:
            for number in numbers:
                signal.raise_signal(number)

    monkeypatch.setattr(DrawJournal, "begin", begin_and_signal)
    original = signal.signal(signal.SIGHUP, before)
    try:
        return call_here("train", "quickstart", *SMALL, "--out", folder)
    finally:
        assert signal.signal(signal.SIGHUP, original) is before


def test_a_closed_terminal_stops_a_run_as_ctrl_c_does(tmp_path, monkeypatch):
    # Twice: the system sends SIGHUP, and so does an interactive shell.
    done = signalled(tmp_path / "a run", monkeypatch, signal.SIGHUP, signal.SIGHUP)
    assert done.returncode == 1
    assert "stopped after step 3; nothing is lost. " in done.stderr
    assert f"Resume it with: dpmed train --resume '{tmp_path}/a run'" in done.stderr
    assert ledger_of(tmp_path / "a run")["steps"] == steps_saved(tmp_path / "a run") == 3


def test_under_nohup_a_run_outlives_its_terminal(tmp_path, monkeypatch):
    done = signalled(tmp_path / "run", monkeypatch, signal.SIGHUP, before=signal.SIG_IGN)
    assert done.returncode == 0, done.stderr


def test_a_second_ctrl_c_stops_at_once_and_the_run_can_be_resumed(tmp_path, monkeypatch):
    done = signalled(tmp_path / "run", monkeypatch, signal.SIGINT, signal.SIGINT)
    assert done.returncode == 1
    assert f"interrupted. Resume it with: dpmed train --resume {tmp_path}/run" in done.stderr
    assert ledger_of(tmp_path / "run")["steps"] >= 3


def test_resume_without_a_checkpoint_starts_at_step_0(tmp_path, small_run):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("config.toml", "split.json"):
        (folder / name).write_bytes((small_run / name).read_bytes())
    done = call_here("train", "--resume", folder)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "summary.json").read_text())["steps"] == 40


def test_resuming_a_finished_run_changes_nothing(small_run):
    before = (small_run / "model.eqx").read_bytes()
    done = call_here("train", "--resume", small_run)
    assert done.returncode == 0, done.stderr
    assert (small_run / "model.eqx").read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "other config"])
def test_a_bad_checkpoint_is_named_and_nothing_is_lost(tmp_path, small_run, damage):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("config.toml", "split.json", "privacy.json", "checkpoints/draws"):
        (folder / name).write_bytes((small_run / name).read_bytes())
    newest = sorted((small_run / "checkpoints").glob("step-*.ckpt"))[-1]
    content = newest.read_bytes()
    (folder / "checkpoints" / newest.name).write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    if damage == "other config":
        text = (folder / "config.toml").read_text()
        (folder / "config.toml").write_text(text.replace("clipping_norm = 0.5", "clipping_norm = 0.6"))
    done = call_here("train", "--resume", folder)
    assert done.returncode == 2
    assert newest.name in done.stderr
    assert ("damaged" if damage == "cut" else "another config") in done.stderr
    assert (folder / "checkpoints" / newest.name).exists()


def test_early_stopping_keeps_the_best_weights_spends_all_that_was_planned_and_a_resume_does_not_train_on(tmp_path):
    folder, cohort = tmp_path / "run", tmp_path / "cohort.db"
    stopping = [
        "--set",
        "training.early_stopping={patience = 1, min_delta = 0.9}",
        "--set",
        "evaluation.every_epochs=1",
        "--set",
        f"privacy.cohort={cohort}",
    ]
    done = call_here("train", "quickstart", *SMALL, *stopping, "--out", folder)
    assert done.returncode == 0, done.stderr
    summary, ledger = json.loads((folder / "summary.json").read_text()), ledger_of(folder)
    # When it stopped depends on the patients: ε of the steps until then would be no bound.
    assert (summary["steps"], ledger["steps"], ledger["steps_planned"]) == (8, 40, 40)
    assert summary["epsilon"] == ledger["epsilon"] == pytest.approx(8, rel=1e-3)
    spent = json.loads(call_here("budget", cohort, "--json").stdout)
    assert spent["epsilon_largest"] == pytest.approx(8, rel=1e-3)
    assert (spent["history"][0]["steps"], spent["history"][0]["steps_planned"]) == (8, 40)
    assert "determined when to stop" in " ".join(ledger["outside_accounting"])
    assert "ε counts all planned steps" in " ".join(ledger["notes"])
    weights = (folder / "model.eqx").read_bytes()
    assert call_here("train", "--resume", folder).returncode == 0
    assert (folder / "model.eqx").read_bytes() == weights
    assert ledger_of(folder)["steps"] == 40


@pytest.fixture(scope="module")
def killed_run(tmp_path_factory):
    """A release run that was killed, and the draws that it had begun."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    arguments = ["train", "quickstart", *SMALL, "--set", "training.checkpoint_steps=7", "--out", folder]
    assert kill_at(folder, 14, *arguments) == -signal.SIGKILL
    return folder, DrawJournal(folder / "checkpoints" / "draws").draws


DAMAGES = {
    "intact": lambda path: None,
    "emptied": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "garbage": lambda path: path.write_bytes(b"\xff" * 64),
    "an older copy": lambda path: (path.unlink(), DrawJournal(path).begin(3)),
    "beyond the plan": lambda path: DrawJournal(path).begin(10**15),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damage_to_the_journal_makes_a_resumed_run_forget_a_draw(tmp_path, killed_run, damage):
    killed, begun = killed_run
    folder = tmp_path / "run"
    shutil.copytree(killed, folder)
    DAMAGES[damage](folder / "checkpoints" / "draws")
    covered, saved = ledger_of(folder)["steps"], steps_saved(folder)
    assert begun <= covered
    done = call_here("train", "--resume", folder)
    assert done.returncode == 0, done.stderr
    ledger, summary = ledger_of(folder), json.loads((folder / "summary.json").read_text())
    # Draws lost with the killed process are counted in addition to the updates of the weights.
    lost = begun - saved
    assert ledger["steps"] >= summary["steps"] + lost
    assert ledger["epsilon"] <= 8
    said = damage in ("emptied", "missing", "garbage", "an older copy")
    assert ("more than were made" in done.stderr) == said
    assert any("journal of draws" in note for note in ledger["notes"]) == said


def test_a_lost_journal_is_replaced_by_the_ledger_which_claims_no_less(tmp_path, small_run):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("config.toml", "split.json"):
        (folder / name).write_bytes((small_run / name).read_bytes())
    ledger = ledger_of(small_run)
    (folder / "privacy.json").write_text(json.dumps({**ledger, "steps": 25, "status": "running"}))
    done = call_here("train", "--resume", folder)
    assert done.returncode == 0, done.stderr
    assert ledger_of(folder)["steps"] == 40
    assert json.loads((folder / "summary.json").read_text())["steps"] == 15
    (folder / "checkpoints" / "draws").unlink()
    (folder / "privacy.json").write_text("{}")
    done = call_here("train", "--resume", folder)
    assert done.returncode == 2
    assert "privacy.json" in done.stderr


def test_bfloat16_trains_about_as_well_keeps_its_budget_and_is_kept_by_a_resume(tmp_path, seeded_run):
    folder = tmp_path / "run"
    kill_at(folder, 8, "train", "quickstart", *SMALL, *SEEDED, "--set", "training.precision=bfloat16", "--out", folder)
    assert 'precision = "bfloat16"' in (folder / "config.toml").read_text()
    done = call("train", "--resume", folder)
    assert done.returncode == 0 and "no faster on this device" in done.stderr, done.stderr
    found, known = (json.loads((run / "summary.json").read_text()) for run in (folder, seeded_run))
    assert found["epsilon"] == known["epsilon"]
    # The same batches and noise: only rounding differs, which hardly affects 80 test images.
    assert abs(found["test"]["accuracy"] - known["test"]["accuracy"]) <= 3 / 80
    apart = np.abs(weights(folder / "model.eqx") - weights(seeded_run / "model.eqx")).max()
    assert 0 < apart < 0.1


def test_auto_precision_is_settled_when_a_run_begins(tmp_path):
    folder = tmp_path / "plan"
    done = call_here("train", "quickstart", "--set", "training.precision=auto", "--dry-run", "--json", "--out", folder)
    assert done.returncode == 0, done.stderr
    # CPUs gain nothing from bfloat16.
    assert json.loads(done.stdout)["precision"] == "float32"


def test_a_gradient_that_depends_on_its_place_is_in_the_ledger_even_if_another_machine_finishes(tmp_path, monkeypatch):
    from dpmed.planning import computation

    monkeypatch.setattr(computation, "place_effect", lambda *_: 3e-8)
    run = tmp_path / "run"
    assert call_here("train", "quickstart", *SMALL, "--out", run).returncode == 0
    (found,) = (note for note in ledger_of(run)["notes"] if "its place in a microbatch" in note)
    assert "3e-08" in found
    # As if it had been killed when all but the test was done.
    (run / "summary.json").unlink()
    monkeypatch.setattr(computation, "place_effect", lambda *_: 0.0)
    assert call_here("train", "--resume", run).returncode == 0
    assert found in ledger_of(run)["notes"]
    assert found in json.loads((run / "summary.json").read_text())["notes"]


def test_a_resumed_run_forgets_nothing_that_its_ledger_left_out(tmp_path, small_run):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    (run / "summary.json").unlink()
    ledger = ledger_of(run)
    # As if it had begun with weights that were replaced since.
    began = "Training began with the model of the run prior. Those data are not a phantom."
    before = [*ledger["outside_accounting"], began]
    (run / "privacy.json").write_text(json.dumps({**ledger, "outside_accounting": before}))
    assert call_here("train", "--resume", run).returncode == 0
    assert ledger_of(run)["outside_accounting"] == before


def test_records_are_computed_one_at_a_time_where_places_would_move_a_step_too_much(tmp_path, monkeypatch):
    from dpmed.planning import computation

    monkeypatch.setattr(computation, "place_effect", lambda step, state, records: 1e-3 * (len(records["step"]) > 1))
    alone, chosen = tmp_path / "alone", tmp_path / "chosen"
    done = call_here("train", "quickstart", *SMALL, "--out", alone)
    assert done.returncode == 0 and "computed one at a time" in " ".join(done.stderr.split())
    assert not any("its place in a microbatch" in note for note in ledger_of(alone)["notes"])
    assert call_here("train", "quickstart", *SMALL, "--set", "training.microbatch=8", "--out", chosen).returncode == 0
    assert any("adds up to 0.001" in note for note in ledger_of(chosen)["notes"])


@pytest.mark.parametrize(("effect", "wanted"), [(3e-8, None), (1e-3, 1)])
def test_places_are_measured_again_when_memory_runs_out_and_the_microbatch_is_halved(
    tmp_path, monkeypatch, effect, wanted
):
    from dpmed.planning import computation
    from dpmed.training import loop

    run, measured, stated = tmp_path / "run", [], []

    def place_effect(step, state, records):
        measured.append(len(records["step"]))
        # Alike in the first program that is compiled, and with one record at once.
        return effect * (1 < measured[-1] < measured[0])

    def accumulate(step, state, microbatches, number):
        if not stated:
            stated.append(ledger_of(run)["notes"])
            raise MemoryError
        stated.append(ledger_of(run)["notes"])
        return real(step, state, microbatches, number)

    real = loop.accumulate
    monkeypatch.setattr(computation, "place_effect", place_effect)
    monkeypatch.setattr(loop, "accumulate", accumulate)
    short = ("--set", "training.epochs=1", "--set", "evaluation.every_epochs=1")
    done = call_here("train", "quickstart", *SMALL, *short, "--out", run)
    assert done.returncode == 0, done.stderr
    said, smaller = " ".join(done.stderr.split()), measured[1]
    assert smaller < measured[0] and f"continuing with {wanted or smaller}." in said
    assert ("computed one at a time" in said) == (wanted == 1)
    # On the disk before the sum that is computed with it, and at the end.
    for notes, is_noted in ((stated[0], False), (stated[1], not wanted), (ledger_of(run)["notes"], not wanted)):
        assert any("its place in a microbatch" in note for note in notes) == is_noted
