"""`dpmed train`: plan, train, test, write down: once as a new run, or from where a run stopped."""

import hashlib
import platform
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmed.config.load import config_from_toml, config_to_toml
from dpmed.config.schema import Config
from dpmed.errors import InputError, RunError
from dpmed.files import exclusive_lock, make_folder, read_json, to_json, write_json, write_text
from dpmed.planning.plan import Plan
from dpmed.progress import Progress
from dpmed.runtime.distributed import ALONE, Processes
from dpmed.workflows.train import inspection
from dpmed.workflows.train.training_run import Run

CONFIG_FILE = "config.toml"
SPLIT_FILE = "split.json"
SUMMARY_FILE = "summary.json"
_MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """What a finished run reached and what it cost.

    Attributes:
        folder: the run folder.
        test: final test metrics.
        intervals: their 95 % bootstrap confidence intervals, where computed.
        epsilon: ε spent; None without privacy.
        delta: δ; None without privacy.
        steps: updates made.
        seconds: time spent training.
        samples_per_second: training records processed per second.
        notes: what must be known to read ε rightly.
        release: what may leave the house, in words.
    """

    folder: Path
    test: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    epsilon: float | None
    delta: float | None
    steps: int
    seconds: float
    samples_per_second: float
    notes: tuple[str, ...]
    release: tuple[str, ...]

    def describe(self) -> dict[str, str]:
        """The end of a run as names and values, for the user."""
        facts = {f"test {name}": f"{value:.4f}{self._interval(name)}" for name, value in self.test.items()}
        if self.epsilon is None:
            facts["privacy"] = "none"
        else:
            facts["privacy"] = f"ε = {self.epsilon:.4g} at δ = {self.delta:g}"
        facts["time"] = f"{self.seconds:.1f} s, {self.samples_per_second:.0f} samples/s"
        return {**facts, "run folder": str(self.folder)}

    def _interval(self, name: str) -> str:
        if name not in self.intervals:
            return ""
        low, high = self.intervals[name]
        return f"  (95 % interval {low:.4f} to {high:.4f})"

    def to_json(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        return {
            "test": dict(self.test),
            "test_interval": {name: list(interval) for name, interval in self.intervals.items()},
            "epsilon": self.epsilon,
            "delta": self.delta,
            "steps": self.steps,
            "seconds": self.seconds,
            "samples_per_second": self.samples_per_second,
            "notes": list(self.notes),
            "release": list(self.release),
            "versions": versions(),
        }


def versions() -> dict[str, str]:
    """What the result was computed with."""
    from importlib.metadata import version

    names = ("dpmed", "jax", "equinox", "optax", "numpy", "dp-accounting")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def run(plan: Plan, folder: Path, progress: Progress, *, processes: Processes = ALONE) -> TrainSummary | None:
    """Train a new run in an empty folder.

    Args:
        plan: what to train.
        folder: where to write; made by the caller.
        progress: tells the user.
        processes: that train together.

    Returns:
        What the run reached; None in all processes but the first, which alone writes.

    Raises:
        RunError: the user stopped the run, or the disk is full; the message says how to go on.
    """
    if processes.is_first:
        make_folder(folder / "checkpoints")
        write_json(folder / SPLIT_FILE, plan.split.to_json())
        # Written last of what a resume needs: a folder with a config can always be resumed.
        write_text(folder / CONFIG_FILE, config_to_toml(plan.config))
    return _train(plan, folder, progress, processes)


def dry_run(plan: Plan, folder: Path, progress: Progress) -> dict[str, Any]:
    """The plan with what was found in the data and what a step needs; writes `plan.json` and `contact_sheet.png`.

    Raises:
        InputError: a sample cannot be read.
    """
    found = inspection.run(plan.dataset, plan.split, seed=plan.config.training.seed, folder=folder)
    planned = Run(plan, folder, progress, config_digest="")
    memory = planned.step_memory()
    content = {
        **plan.to_json(),
        "microbatch": planned.microbatch,
        "step_memory_bytes": memory,
        "data": found.to_json(),
    }
    write_json(folder / "plan.json", content)
    return {
        **content,
        "facts": {
            **found.facts(),
            "memory of a step": f"{memory / 2**20:.0f} MiB with {planned.microbatch} records at once",
        },
    }


def load_run_config(folder: Path) -> Config:
    """The config of a run folder.

    Raises:
        InputError: the folder holds no run, or its config is damaged.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        remedy = "Give the folder that `dpmed train` named at its end."
        raise InputError("holds no training run (no config.toml)", where=str(folder), remedy=remedy)
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise InputError("is over 1 MiB, which no config is", where=str(path))
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path)) from error
    return config_from_toml(text, str(path))


def resume(folder: Path, progress: Progress, *, plan: Plan, processes: Processes = ALONE) -> TrainSummary | None:
    """Go on with a run from its last checkpoint, or from its start when it has none; see `run`.

    The number of devices and of processes may be another than before.

    Raises:
        InputError: a checkpoint is damaged or belongs to another config, or the data set has changed.
        RunError: as `run`.
    """
    if processes.is_first:
        make_folder(folder / "checkpoints")
    if read_json(folder / SPLIT_FILE) != plan.split.to_json():
        raise InputError(
            "the data set is split otherwise than when the run began, so it has changed since",
            where=str(folder / SPLIT_FILE),
            remedy="Put back the data set as it was, or start a new run.",
        )
    return _train(plan, folder, progress, processes)


def _train(plan: Plan, folder: Path, progress: Progress, processes: Processes) -> TrainSummary | None:
    with ExitStack() as open_while_training:
        with processes.together():
            if processes.is_first:
                open_while_training.enter_context(exclusive_lock(folder / "checkpoints" / "lock"))
        processes.require_alike("the plan, its data or dpmed's version", _fingerprint(plan))
        stop = open_while_training.enter_context(_stop_politely())
        digest = processes.first(_digest(folder / CONFIG_FILE) if processes.is_first else None)
        current = Run(plan, folder, progress, config_digest=digest, should_stop=stop.is_set, processes=processes)
        outcome = current.train()
        if not outcome.finished:
            raise RunError(
                f"stopped after step {outcome.run.step}; nothing is lost",
                remedy=f"Go on with: dpmed train --resume {folder}",
            )
        result = current.test(outcome.run)
        if not processes.is_first:
            return None
        ledger, test, intervals = current.finish(outcome.run, result)
    done = outcome.run
    summary = TrainSummary(
        folder=folder,
        test=test,
        intervals=intervals,
        epsilon=ledger.epsilon,
        delta=ledger.delta,
        steps=done.step,
        seconds=done.seconds,
        samples_per_second=done.records / done.seconds if done.seconds else 0.0,
        notes=ledger.notes,
        release=current.release,
    )
    write_json(folder / SUMMARY_FILE, summary.to_json())
    return summary


def _fingerprint(plan: Plan) -> str:
    known = [config_to_toml(plan.config), plan.split.to_json(), versions()]
    return hashlib.sha256(to_json(known).encode()).hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def _stop_politely() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM set a flag that is looked at after every step; a second Ctrl-C stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
