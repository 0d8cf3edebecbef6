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


# A user's process: without the strictness that the tests in this process have, which optax does not bear.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("JAX_NUMPY_")}
# Many tests call the same command: what one of them has compiled the next ones find.
_COMPILED = tempfile.TemporaryDirectory(prefix="dpmed-compiled-")
ENVIRONMENT |= {
    "JAX_COMPILATION_CACHE_DIR": _COMPILED.name,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "dpmed", *map(str, arguments)]


def call(*arguments: object, cwd: Path | None = None, devices: int = 1) -> subprocess.CompletedProcess[str]:
    """Run the command, on so many simulated devices."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        check=False,
        env=with_devices(devices),
    )


def with_devices(count: int) -> dict[str, str]:
    return {**ENVIRONMENT, "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}


def steps_saved(folder: Path) -> int:
    """The step of the newest checkpoint, by its name; -1 for none."""
    names = sorted((folder / "checkpoints").glob("step-*.ckpt"))
    return int(names[-1].name.split("-")[1]) if names else -1


def kill_at(folder: Path, step: int, *arguments: object, signal_number: int = signal.SIGKILL, devices: int = 1) -> int:
    """Start the command and send it a signal once a checkpoint of `step` or later is there; gives its exit code."""
    environment = with_devices(devices)
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    deadline = time.monotonic() + 120
    while process.poll() is None and steps_saved(folder) < step and time.monotonic() < deadline:
        time.sleep(0.002)
    if process.poll() is None:
        os.kill(process.pid, signal_number)
    process.communicate(timeout=60)
    return process.returncode


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """The folder of a finished small release run of the quickstart."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    done = call("train", "quickstart", *SMALL, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def seeded_run(tmp_path_factory):
    """The folder of a finished small seeded run of the quickstart, to be read only."""
    folder = tmp_path_factory.mktemp("runs") / "seeded"
    done = call("train", "quickstart", *SMALL, *SEEDED, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """Neighbours run the same programs: the second finds what the first has compiled."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], str(tmp_path_factory.mktemp("compiled")))
    jax.config.update(names[1], 0.0)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def chests(tmp_path_factory):
    return make_chests(tmp_path_factory.mktemp("chests"))
