"""What a run folder holds at any time: the ledger covers all draws, and a resume finds what was saved."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from dpmed.config.load import load_config
from dpmed.errors import InputError
from dpmed.inference.composed_ledger import compose, spending
from dpmed.planning.computation import build_computation
from dpmed.planning.plan import make_plan
from dpmed.planning.run_ledger import run_ledger
from dpmed.planning.secrets import draw_secrets
from dpmed.progress import Silent
from dpmed.runtime.distributed import Processes
from dpmed.training.loop import Outcome
from dpmed.workflows.train import run_folder as room
from dpmed.workflows.train.run_folder import create_run_folder, open_run_folder

SETTINGS = [
    "data.limit=120", "training.batch_size=16", "training.epochs=2", "model.width=[4]", "training.microbatch=8",
    "training.checkpoint_steps=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def plan():
    return make_plan(load_config("quickstart", SETTINGS).config, Silent())


@pytest.fixture(scope="module")
def computation(plan):
    return build_computation(plan, draw_secrets(plan))


@pytest.fixture
def path(tmp_path, plan):
    create_run_folder(tmp_path, plan)
    return tmp_path


def ledger_of(path):
    return json.loads((path / "privacy.json").read_text())


def test_a_new_run_begins_at_step_0_with_a_ledger_up_to_its_first_checkpoint(path, plan, computation):
    folder = open_run_folder(path, plan, Silent())
    assert (folder.checkpoint, folder.draws) == (None, 0)
    run = folder.restore(computation)
    assert (run.step, run.draws, run.microbatch) == (0, 0, 8)
    folder.open(run)
    assert (ledger_of(path)["steps"], ledger_of(path)["status"]) == (3, "running")
    assert json.loads((path / "internal.json").read_text())["units"] == plan.units.to_json()
    folder.before_draw(1)
    folder.close()
    # If it crashes now, the draw is on record.
    assert open_run_folder(path, plan, Silent()).draws == 3


def test_what_was_saved_is_restored_with_its_microbatch(path, plan, computation):
    folder = open_run_folder(path, plan, Silent())
    run = folder.restore(computation)
    trainable = jax.tree.map(lambda leaf: leaf + 1, run.state.trainable)
    row = {"epoch": 1.0, "step": 2, "epsilon": 0.5, "split": "train", "loss": 1.0}
    run = replace(
        run, state=replace(run.state, trainable=trainable), step=2, draws=2, microbatch=4, rows=(row,), records=32
    )
    folder.save(run)
    folder.close()
    assert ledger_of(path)["steps"] == 5
    assert (path / "metrics.csv").read_text().splitlines() == ["epoch,step,epsilon,split,loss", "1.0,2,0.5,train,1.0"]
    again = open_run_folder(path, plan, Silent())
    found = again.restore(computation)
    assert (found.step, found.draws, found.microbatch, found.records, found.rows) == (2, 2, 4, 32, (row,))
    same = jax.tree.map(np.array_equal, found.state.trainable, trainable)
    assert all(jax.tree.leaves(same))
    again.write_spent(Outcome(run=found, finished=False))
    assert (ledger_of(path)["steps"], ledger_of(path)["status"]) == (2, "stopped")


def test_the_ledger_is_on_the_disk_before_the_checkpoint_that_it_covers(path, plan, computation, monkeypatch):
    folder = open_run_folder(path, plan, Silent())
    run = folder.restore(computation)
    seen = []
    monkeypatch.setattr(room, "save_checkpoint", lambda *arguments: seen.append(ledger_of(path)["steps"]))
    for draws in (1, 5, plan.steps):
        folder.save(replace(run, step=draws, draws=draws))
    assert seen == [4, 8, plan.steps]


def test_a_checkpoint_of_another_gradient_method_is_refused(path, plan, computation, monkeypatch):
    folder = open_run_folder(path, plan, Silent())
    folder.save(folder.restore(computation))
    monkeypatch.setattr(room, "METHOD", "another")
    with pytest.raises(InputError, match="this version computes them by 'another'"):
        open_run_folder(path, plan, Silent()).restore(computation)


ROW = {"epoch": 0.5, "step": 1, "epsilon": 0.5, "split": "train", "loss": 1.0}


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("microbatch", 3_000_000, "3000000 records at once, but the plan's largest microbatch has 8"),
        ("draws", 10**9, "1000000000 draws, but the plan has"),
        ("rows", [{**ROW, "epsilon": None}], "rows of metrics without ε"),
    ],
)
def test_a_checkpoint_that_no_run_of_the_plan_writes_is_refused(path, plan, computation, key, value, problem):
    folder = open_run_folder(path, plan, Silent())
    folder.save(folder.restore(computation))
    checkpoint = next((path / "checkpoints").glob("*.ckpt"))
    magic, header, rest = checkpoint.read_bytes().split(b"\n", 2)
    lie = json.loads(header)
    lie["position"][key] = value
    checkpoint.write_bytes(b"\n".join([magic, json.dumps(lie).encode(), rest]))
    with pytest.raises(InputError, match=rf"{checkpoint.name}: does not fit its run: it holds {problem}"):
        open_run_folder(path, plan, Silent())


def test_only_the_first_process_writes(path, plan, computation, monkeypatch):
    digest = open_run_folder(path, plan, Silent()).config_digest
    monkeypatch.setattr(Processes, "first", lambda self, value: digest)
    before = sorted(path.rglob("*"))
    folder = open_run_folder(path, plan, Silent(), processes=Processes(2, 1))
    assert folder.journal is None and not folder.is_writer
    run = folder.restore(computation)
    folder.open(run)
    folder.save(run)
    assert sorted(path.rglob("*")) == before


def test_a_trial_is_kept_as_begun_once_its_ledger_is_on_the_disk(tmp_path, plan, computation):
    (tmp_path / "selection.json").write_text("{}")
    trial = tmp_path / "trial=1" / "seed=1"
    trial.mkdir(parents=True)
    create_run_folder(trial, plan)
    folder = open_run_folder(trial, plan, Silent())
    run = folder.restore(computation)
    assert json.loads((tmp_path / "selection.json").read_text()) == {}
    folder.open(run)
    (begun,) = json.loads((tmp_path / "selection.json").read_text())["begun"]
    assert (begun["folder"], begun["run_id"]) == ("trial=1/seed=1", ledger_of(trial)["run_id"])
    assert begun["steps_counted"] == plan.steps


def test_one_of_several_runs_is_no_longer_only_planned_once_its_ledger_is_on_the_disk(tmp_path, plan, computation):
    member = tmp_path / "seed=1"
    member.mkdir()
    create_run_folder(member, plan)
    planned = spending("seed=1", run_ledger(plan, draws=plan.steps, status="planned").to_json(), where="seed=1")
    (tmp_path / "privacy.json").write_text(json.dumps(compose([planned]).to_json()))
    folder = open_run_folder(member, plan, Silent())
    folder.open(folder.restore(computation))
    (begun,) = ledger_of(tmp_path)["runs"]
    assert (begun["status"], begun["run_id"]) == ("running", ledger_of(member)["run_id"])
