"""Small runs of the real command, and a way to kill them in the middle."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import pytest
from typer.testing import CliRunner

from tests.forked import Forked
from tests.workflows.neighbours import make_chests

SMALL = [
    "--set", "data.limit=400",
    "--set", "training.batch_size=64",
    "--set", "training.epochs=10",
    "--set", "evaluation.every_epochs=5",
    "--set", "evaluation.bootstrap=20",
]  # fmt: skip


SEEDED = [
    "--set", "privacy.noise_source=seeded",
    "--set", "training.checkpoint_steps=3",
    "--set", "training.ema_decay=0.9",
]  # fmt: skip


# A user's process: without the strictness of the tests in this process, under which optax fails.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_NUMPY_", "JAX_DEFAULT_"))}
# Many tests call the same command, so later ones find what an earlier one has compiled.
_COMPILED = tempfile.TemporaryDirectory(prefix="dpmed-compiled-")
ENVIRONMENT |= {
    "JAX_COMPILATION_CACHE_DIR": _COMPILED.name,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "dpmed", *map(str, arguments)]


def call(*arguments: object, cwd: Path | None = None, devices: int = 1) -> subprocess.CompletedProcess[str]:
    """Run the command on a number of simulated devices."""
    return Forked([str(argument) for argument in arguments], with_devices(devices), cwd).finish(300)


def call_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in this process: for tests of what it writes and prints, not of how a process ends."""
    from dpmed.cli.app import app

    # optax fails under the strictness of the tests.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        words = [str(argument) for argument in arguments]
        result = CliRunner().invoke(app, words, prog_name="dpmed", env={"COLUMNS": "160"})
    return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)


def with_devices(count: int) -> dict[str, str]:
    flags = f"{ENVIRONMENT['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
    return {**ENVIRONMENT, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def steps_saved(folder: Path) -> int:
    """The step of the newest checkpoint, by its name; -1 for none."""
    names = sorted((folder / "checkpoints").glob("step-*.ckpt"))
    return int(names[-1].name.split("-")[1]) if names else -1


def kill_at(folder: Path, step: int, *arguments: object, signal_number: int = signal.SIGKILL, devices: int = 1) -> int:
    """Start the command and send it a signal once a checkpoint of `step` or later exists; returns its exit code."""
    process = Forked([str(argument) for argument in arguments], with_devices(devices), None)
    deadline = time.monotonic() + 120
    while process.poll() is None and steps_saved(folder) < step and time.monotonic() < deadline:
        time.sleep(0.002)
    if process.poll() is None:
        os.kill(process.pid, signal_number)
    return process.finish(60).returncode


@pytest.fixture(scope="module")
def chests(tmp_path_factory):
    return make_chests(tmp_path_factory.mktemp("chests"))
