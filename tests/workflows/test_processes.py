"""Several real processes on this machine that train one model, as srun and mpirun would start them."""

import hashlib
import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from dpmed.config.load import load_config
from dpmed.planning.computation import Computation
from dpmed.planning.plan import make_plan
from dpmed.progress import Silent
from dpmed.runtime.distributed import join, launch_of
from dpmed.workflows.train.run import run
from tests.forked import Forked, command
from tests.workflows.conftest import SEEDED, SMALL, call, steps_saved, with_devices

ROWS = ["step", "epsilon", "records", "rejected", "clipped"]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def explicit(number, count):
    return {"JAX_NUM_PROCESSES": count, "JAX_PROCESS_ID": number}


def slurm(number, count):
    return {
        "SLURM_JOB_ID": 815,
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_TASKS": count,
        "SLURM_NTASKS": count,
        "SLURM_PROCID": number,
        "SLURM_LOCALID": number,
    }


def open_mpi(number, count):
    # Open MPI 4 names the host; 5 does not, and the user says where.
    return {
        "OMPI_COMM_WORLD_SIZE": count,
        "OMPI_COMM_WORLD_RANK": number,
        "OMPI_COMM_WORLD_LOCAL_RANK": number,
        "OMPI_MCA_orte_hnp_uri": f"{4096 * random.randrange(1000)}.0;tcp://127.0.0.1:34911",
    }


def start(parts, launcher=explicit, *, devices=1, entry=command):
    """Processes that train together, each given by the arguments of its command."""
    where = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}"}
    return [
        Forked(
            [str(word) for word in part],
            with_devices(devices) | where | {name: str(value) for name, value in launcher(number, len(parts)).items()},
            None,
            entry=entry,
        )
        for number, part in enumerate(parts)
    ]


def end(processes):
    """Exit codes, standard outputs and standard errors."""
    told = [process.finish(120) for process in processes]
    return [one.returncode for one in told], [one.stdout for one in told], [one.stderr for one in told]


def columns(folder):
    import pandas as pd

    return pd.read_csv(folder / "metrics.csv")


def ledger(folder):
    """What the run states, bound to the model in its folder; compared without digest, time and random name."""
    facts = json.loads((folder / "privacy.json").read_text())
    assert facts.pop("model_sha256") == hashlib.sha256((folder / "model.eqx").read_bytes()).hexdigest()
    del facts["created"], facts["run_id"]
    return facts


@pytest.mark.parametrize(("launcher", "devices"), [(slurm, 1), (open_mpi, 2)])
def test_two_processes_train_what_one_trains(tmp_path, seeded_run, launcher, devices):
    folder = tmp_path / "shared"
    line = ("train", "quickstart", *SMALL, *SEEDED, "--json", "--out", folder)
    codes, outputs, errors = end(start([line, line], launcher, devices=devices))
    assert codes == [0, 0], errors
    # Only the first process prints its JSON, and nothing else appears on standard output.
    assert json.loads(outputs[0])["folder"] == str(folder) and outputs[1] == ""
    assert list(tmp_path.iterdir()) == [folder]
    ours, theirs = columns(folder), columns(seeded_run)
    # The same batches, and the same weights up to rounding.
    assert ours[ROWS].equals(theirs[ROWS])
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=2e-4)
    assert ledger(folder) == ledger(seeded_run)


def test_two_processes_run_the_same_microbatches_of_several_shapes(tmp_path, chests):
    # Of one and of three views. Each process has one row of a microbatch; without a record for it, it takes part too.
    chosen = [
        f"data.root={chests}", 'data.name="folder"', "data.size=[8,8]", "data.channels=1", "model.width=[6]",
        'data.group_pattern="^(P[0-9]+)_"', "data.cache=false", "data.max_samples_per_unit=3", "training.batch_size=3",
        "training.epochs=2", "training.microbatch=2", "evaluation.bootstrap=20", "privacy.unit=patient",
        "privacy.delta=1e-3", "privacy.noise_source=seeded",
    ]  # fmt: skip
    line = ("train", "quickstart", *(word for key in chosen for word in ("--set", key)), "--out")
    alone = call(*line, tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    codes, _, errors = end(start([(*line, tmp_path / "shared")] * 2))
    assert codes == [0, 0], errors
    ours, theirs = columns(tmp_path / "shared"), columns(tmp_path / "alone")
    assert ours[ROWS].equals(theirs[ROWS])
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=2e-4)


def test_when_one_process_is_killed_all_end_and_two_others_go_on(tmp_path, seeded_run):
    folder = tmp_path / "broken"
    line = ("train", "quickstart", *SMALL, *SEEDED, "--out", folder)
    processes = start([line, line])
    deadline = time.monotonic() + 60
    while steps_saved(folder) < 6 and processes[0].poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(processes[1].pid, signal.SIGKILL)
    codes, _, errors = end(processes)
    assert codes[0] not in (0, None) and codes[1] == -signal.SIGKILL
    assert "lost another process of this run" in errors[0] or "Terminating process" in errors[0]
    assert "unexpected " not in errors[0]
    codes, _, errors = end(start([("train", "--resume", folder)] * 2))
    assert codes == [0, 0], errors
    assert columns(folder)[ROWS].equals(columns(seeded_run)[ROWS])
    np.testing.assert_allclose(columns(folder)["loss"], columns(seeded_run)["loss"], rtol=2e-4)


def test_a_wish_to_stop_that_reaches_one_stops_all(tmp_path):
    folder = tmp_path / "stopped"
    line = ("train", "quickstart", *SMALL, *SEEDED, "--out", folder)
    processes = start([line, line])
    deadline = time.monotonic() + 60
    while steps_saved(folder) < 6 and processes[0].poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(processes[1].pid, signal.SIGTERM)
    codes, _, errors = end(processes)
    assert codes == [1, 1] and "nothing is lost" in errors[0], errors


def release(folder):
    """In a separate process: a release run, and a digest of its final weights."""
    overrides = ["data.limit=300", "training.epochs=2", "training.batch_size=64"]
    processes = join(launch_of(os.environ))
    plan = make_plan(load_config("quickstart", overrides).config, Silent())
    told = []
    tested = Computation.test

    def listen(self, state, progress):
        told.append(state)
        return tested(self, state, progress)

    Computation.test = listen
    run(plan, Path(folder), Silent(), processes=processes)
    weights = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(told[0].state.trainable)]
    sys.stdout.write(hashlib.sha256(b"".join(weights)).hexdigest() + f" {told[0].records}")


def test_processes_of_a_release_run_share_batches_and_noise_and_no_two_runs_do(tmp_path):
    told = []
    for name in ("one", "other"):
        codes, outputs, errors = end(start([[tmp_path / name]] * 2, entry=release))
        assert codes == [0, 0], errors
        assert outputs[0] == outputs[1]
        told.append(outputs[0])
    assert told[0] != told[1]
    # The shared secret is written nowhere: there are no files other than those of a single run.
    assert sorted(os.listdir(tmp_path / "one")) == [
        "checkpoints", "classes.csv", "config.toml", "confusion.csv", "confusion.png", "curves.png", "internal.json",
        "metrics.csv", "model.eqx", "model.json", "privacy.json", "split.csv", "split.json", "summary.json",
    ]  # fmt: skip


def test_an_error_of_the_first_ends_all_with_one_explanation(tmp_path):
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "file").write_text("mine")
    begun = time.monotonic()
    line = ("train", "quickstart", "--out", folder)
    codes, outputs, errors = end(start([line, line]))
    assert codes == [2, 1] and outputs[1] == ""
    assert "already holds files" in errors[0] and "another process" in errors[1]
    assert time.monotonic() - begun < 60


def test_processes_with_other_plans_do_not_begin(tmp_path):
    lines = [("train", "quickstart", *SMALL, f"--seed={seed}", "--out", tmp_path / "run") for seed in (1, 2)]
    codes, _, errors = end(start(lines))
    assert codes == [1, 1] and all("not the same in all processes" in error for error in errors)


@pytest.mark.parametrize("option", [["--dry-run"], ["--seeds", "1,2"]])
def test_what_is_no_single_run_is_refused(tmp_path: Path, option):
    environment = with_devices(1) | {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"}
    environment |= {name: str(value) for name, value in explicit(0, 2).items()}
    done = Forked(["train", "quickstart", *option, "--out", str(tmp_path / "run")], environment, None).finish(60)
    assert done.returncode == 2 and "cannot be shared by 2 processes" in done.stderr
