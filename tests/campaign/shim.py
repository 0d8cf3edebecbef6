"""A command in a forked process, one of whose calls to the file system fails, falls short, or is the last it makes.

The shim is `fault.c`, preloaded under Python. Draws are counted apart from dpmed: a byte is appended to a file of ours
whenever a step is about to add its noise.
"""

import ctypes
import errno
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

from tests import forked
from tests.compiled import SHORTEST
from tests.forked import Forked

SOURCE = Path(__file__).with_name("fault.c")
BUILD = Path(__file__).resolve().parents[2] / "build" / "campaign"
MORE_ROOMS = (
    "dpmed.workflows.attack.run",
    "dpmed.workflows.audit",
    "dpmed.workflows.budget",
    "dpmed.workflows.export",
    "dpmed.workflows.match",
    "dpmed.workflows.phantom",
    "dpmed.workflows.predict",
    "dpmed.workflows.visualize.run",
    "dpmed.workflows.train.several.repeats",
    "tests.campaign.shim",
)
SNAPSHOTS = "snapshots"


class Effect(IntEnum):
    """What happens at the chosen call; the numbers are those of `fault.c`."""

    NOTHING = 0
    FAIL = 1
    FAIL_FROM_HERE = 2
    SHORT = 3
    KILL_BEFORE = 4
    KILL_AFTER = 5
    SNAPSHOT = 6
    CLOCK_AHEAD = 7
    CLOCK_BACK = 8


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        number: of the call, from 1; -1 for none.
        effect: what happens at it.
        error: of a call that fails.
        reads: whether calls that read count too.
    """

    number: int = -1
    effect: Effect = Effect.NOTHING
    error: int = errno.EIO
    reads: bool = False


NO_FAULT = Fault()


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a command left behind.

    Attributes:
        code: its exit code; less than 0 for a signal.
        stdout: what it printed.
        stderr: what it complained of.
        calls: operation and path of each call that was met.
        draws: steps whose noise was added.
        hit: operation and path of the call that the fault met, if it met one.
    """

    code: int
    stdout: str
    stderr: str
    calls: tuple[tuple[str, str], ...]
    draws: int
    hit: tuple[str, str] | None = None


@functools.cache
def library() -> Path | None:
    """The compiled shim; None where there is no compiler."""
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / "fault.so"
    if path.is_file() and path.stat().st_mtime >= SOURCE.stat().st_mtime:
        return path
    part = BUILD / f"fault-{os.getpid()}.so"
    words = ["cc", "-shared", "-fPIC", "-O1", "-o", str(part), str(SOURCE), "-ldl"]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    part.replace(path)
    return path


@functools.cache
def environment() -> Mapping[str, str]:
    """Of the commands: compiled programs are shared, so that a case costs little but its own work."""
    from tests.workflows.conftest import ENVIRONMENT

    compiled = BUILD / "compiled"
    compiled.mkdir(parents=True, exist_ok=True)
    for name in MORE_ROOMS:
        if name not in forked.PRELOADED:
            forked.PRELOADED.append(name)
    preload = {} if library() is None else {"LD_PRELOAD": str(library())}
    fixed = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": SHORTEST, "JAX_COMPILATION_CACHE_DIR": str(compiled)}
    return {**ENVIRONMENT, **preload, **fixed, "COLUMNS": "160", "MPLBACKEND": "agg"}


def start(
    arguments: list[str], root: Path, log: Path, fault: Fault = NO_FAULT, *, more: Mapping[str, str] | None = None
) -> Forked:
    """Start a command in `root`, with its caches there; `log` is what `watched` reads, `more` of the environment."""
    own = {**environment(), "XDG_CACHE_HOME": str(root / "cache"), **(more or {})}
    numbers = [fault.number, int(fault.effect), fault.error, int(fault.reads)]
    return Forked([str(root), str(log), *map(str, numbers), *arguments], own, root, entry=armed)


def run(
    arguments: list[str], root: Path, fault: Fault = NO_FAULT, *, timeout: float = 300, log: Path | None = None
) -> Ended:
    """Run a command in `root` with one fault.

    Args:
        arguments: of the command.
        root: its folder.
        fault: what goes wrong.
        timeout: seconds.
        log: where the shim notes its calls; left out, a temporary file.

    Raises:
        subprocess.TimeoutExpired: it hangs.
    """
    with tempfile.TemporaryDirectory(prefix="dpmed-campaign-") as folder:
        log = log or Path(folder, "log")
        done = start(arguments, root, log, fault).finish(timeout)
        calls, draws = watched(log)
        hit = met(log)
    return Ended(code=done.returncode, stdout=done.stdout, stderr=done.stderr, calls=calls, draws=draws, hit=hit)


def watched(log: Path) -> tuple[tuple[tuple[str, str], ...], int]:
    """The calls that were met, and the draws that were made."""
    draws = log.with_name(f"{log.name}.draws")
    calls = tuple((operation, path) for _, operation, path, *_ in _noted(log))
    return calls, draws.stat().st_size if draws.exists() else 0


def met(log: Path) -> tuple[str, str] | None:
    """Operation and path of the call that the fault met; None where there was no such call."""
    return next(((operation, path) for _, operation, path, *more in _noted(log) if more == ["here"]), None)


def _noted(log: Path) -> list[list[str]]:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [line.split("\t") for line in lines if line.count("\t") >= 2]


def armed(root: str, log: str, number: str, effect: str, error: str, reads: str, *arguments: str) -> None:
    """In the forked process: the command under the shim."""
    os.umask(0)  # what is private must be so by itself
    _count_draws(f"{log}.draws")
    _draw_no_figures()
    if "LD_PRELOAD" in os.environ:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        shim = ctypes.CDLL(None)
        if int(effect) == Effect.SNAPSHOT:
            _BACK.append(ctypes.CFUNCTYPE(None, ctypes.c_long)(functools.partial(_snapshot, Path(root), Path(log))))
            shim.fault_call_back(_BACK[0])
        shim.fault_arm(root.encode(), ctypes.c_long(int(number)), int(effect), int(error), descriptor, int(reads))
    forked.command(*arguments)


# Kept, since the shim calls it.
_BACK: list[object] = []


def _snapshot(root: Path, log: Path, number: int) -> None:
    """Copy the folder as it is before a call: `SNAPSHOTS/NUMBER`, and the draws that were made by then."""
    target = log.parent / SNAPSHOTS / f"{number:05d}"
    shutil.copytree(root, target / "case", ignore=shutil.ignore_patterns("matplotlib"))
    shutil.copyfile(f"{log}.draws", target / "draws")


def _count_draws(path: str) -> None:
    import jax

    from dpmed.dpsgd.step import Accumulated, PrivateStep, StepState

    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    own = PrivateStep.update

    # One of several processes asks for the update before the first has put the draw on record, and waits for it inside:
    # the sum is there once all have taken part.
    waits = os.environ.get("JAX_PROCESS_ID", "0") != "0"

    def update(self: PrivateStep, state: StepState, total: Accumulated, *, draw: int) -> StepState:
        if waits:
            jax.block_until_ready(total)
        os.write(descriptor, b".")
        return own(self, state, total, draw=draw)

    PrivateStep.update = update  # type: ignore[method-assign] # of this process alone


def _draw_no_figures() -> None:
    """A picture of one pixel takes the place of each figure: they are half of what a small command computes."""
    from matplotlib.figure import Figure
    from PIL import Image

    def savefig(self: Figure, file: BinaryIO, **options: object) -> None:
        del self, options
        Image.new("L", (1, 1)).save(file, format="PNG")

    Figure.savefig = savefig  # type: ignore[method-assign, assignment] # of this process alone
