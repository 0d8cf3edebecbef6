"""`dpmed predict`: predictions for any number of files, in a table that grows and can be continued.

Files are decoded in threads while the network works on the previous batch. A batch's rows, and the masks they name, are
on disk before the next batch begins; the same command in the same folder continues after the last row.
"""

import hashlib
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Shaped

from dpmed.errors import DpmedError, InputError
from dpmed.files import exclusive_lock, make_folder, read_json, write_json
from dpmed.inference.answers import Answers, answer_columns, answer_row, class_numbers, settle_threshold, text
from dpmed.inference.committee import Committee
from dpmed.inference.decoding import Decoded, decode_input
from dpmed.inference.inputs import Entry, list_inputs
from dpmed.inference.predictor import load_model
from dpmed.inference.row_file import RowFile
from dpmed.inference.volumes.own_grid import write_array, write_mask
from dpmed.progress import Progress

PREDICTIONS = "predictions.csv"
SETTINGS = "predict.json"
MASKS, IMAGES = "masks", "images"
_MAX_WORKERS = 8
_WRITERS = 2
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """What to predict.

    Attributes:
        models: run folders or bundles; several are averaged.
        inputs: files, folders, CSV tables.
        threshold: for two classes or labels; None for the model's own.
        batch_size: images per batch; None for one that suits their size.
        flips: spatial axes along which images are also mirrored.
    """

    models: tuple[Path, ...]
    inputs: tuple[Path, ...]
    threshold: float | None = None
    batch_size: int | None = None
    flips: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PredictSummary:
    """What was predicted.

    Attributes:
        folder: the folder written.
        inputs: the number of input files.
        errors: how many of them could not be read.
        reason: why most of these could not; None if there are none.
        resumed: rows from earlier calls.
        seconds: time spent on the other rows.
        notes: what must be known about the models.
    """

    folder: Path
    inputs: int
    errors: int
    reason: str | None
    resumed: int
    seconds: float
    notes: tuple[str, ...]

    def describe(self) -> dict[str, str]:
        """The summary as names and values, for the user."""
        done = self.inputs - self.resumed
        facts = {"inputs": str(self.inputs), "could not be read": str(self.errors)}
        if self.resumed:
            facts["done before"] = str(self.resumed)
        return {**facts, "time": f"{self.seconds:.1f} s, {done / self.seconds:.1f} files/s" if self.seconds else "0 s"}

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON types."""
        return {
            "folder": str(self.folder),
            "predictions": str(self.folder / PREDICTIONS),
            "inputs": self.inputs,
            "errors": self.errors,
            "reason": self.reason,
            "resumed": self.resumed,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictJob:
    """A checked request: nothing has been written yet, and everything that it needs exists.

    Attributes:
        committee: the models.
        threshold: as settled; None where it has no meaning.
        entries: the input files.
        settings: as asked.
    """

    committee: Committee
    threshold: float | None
    entries: Sequence[Entry]
    settings: PredictSettings


def prepare(settings: PredictSettings, progress: Progress) -> PredictJob:
    """Load the models and list the inputs.

    Raises:
        InputError: models or inputs cannot be used.
    """
    members = [load_model(path, batch_size=settings.batch_size, progress=progress) for path in settings.models]
    committee = Committee(members, flips=settings.flips)
    threshold = settle_threshold(committee.description, settings.threshold)
    entries = list_inputs(settings.inputs, kind=committee.description.preprocessing.kind)
    return PredictJob(committee=committee, threshold=threshold, entries=entries, settings=settings)


def run(job: PredictJob, folder: Path, progress: Progress) -> PredictSummary:
    """Predict all inputs, or those that an earlier call has left.

    Args:
        job: as prepared.
        folder: where to write; created if missing.
        progress: reports to the user.

    Raises:
        InputError: the folder holds other predictions.
        RunError: the disk is full; what was predicted is kept.
    """
    committee, threshold, entries = job.committee, job.threshold, job.entries
    make_folder(folder)
    with exclusive_lock(folder / ".lock"):
        _settle_folder(folder, _fingerprint(job))
        work = _Work(committee, folder, threshold)
        rows = RowFile(folder / PREDICTIONS, work.columns, first=[entry.input for entry in entries])
        begun = time.monotonic()
        reasons = rows.reasons
        with (
            rows.open() as appender,
            progress.task("predicting", total=len(entries), unit="files", done=rows.rows) as task,
        ):
            for block in work.blocks(entries[rows.rows :]):
                appender.write(block)
                reasons.update(str(row["error"]) for row in block if "error" in row)
                task.advance(len(block))
        seconds = time.monotonic() - begun
    return PredictSummary(
        folder=folder,
        inputs=len(entries),
        errors=reasons.total(),
        reason=next((reason for reason, _ in reasons.most_common(1)), None),
        resumed=rows.rows,
        seconds=seconds,
        notes=tuple(_notes(committee)),
    )


class _Work:
    """Turns entries into blocks of rows, in order."""

    def __init__(self, committee: Committee, folder: Path, threshold: float | None) -> None:
        self._committee = committee
        self._description = committee.description
        self._folder = folder
        self._threshold = threshold
        is_ensemble = len(committee.members) > 1
        self.columns = ["input", *answer_columns(self._description, ensemble=is_ensemble), "error"]
        self._answer = {"segmentation": self._write_mask, "reconstruction": self._write_image}.get(
            self._description.task, self._tell
        )
        for task, name in (("segmentation", MASKS), ("reconstruction", IMAGES)):
            if self._description.task == task:
                make_folder(folder / name)

    def blocks(self, entries: Sequence[Entry]) -> Iterator[list[dict[str, object]]]:
        """The rows, batch by batch."""
        size = 1 if self._committee.uses_windows else self._committee.batch_size
        decode = partial(
            decode_input,
            done=self._description.preprocessing,
            windows=self._committee.uses_windows,
        )
        workers = min(_MAX_WORKERS, os.cpu_count() or 1)
        with ThreadPoolExecutor(workers) as readers, ThreadPoolExecutor(_WRITERS) as writers:
            # At most two batches ahead, so memory does not grow with the number of files.
            ahead = _ahead(readers, (partial(_try, decode, entry.path) for entry in entries), window=2 * size)
            for batch in _batched(zip(entries, ahead, strict=True), size):
                yield self._block(batch, writers)

    def _block(
        self, batch: Sequence[tuple[Entry, Decoded | str]], writers: ThreadPoolExecutor
    ) -> list[dict[str, object]]:
        good = [(entry, found) for entry, found in batch if isinstance(found, Decoded)]
        cells: dict[int, dict[str, object]] = {}
        if good:
            answers = self._ask([found.values for _, found in good])
            jobs = zip(good, answers.mean, strict=True)
            found_cells = list(writers.map(lambda job: self._answer(job[0][0], job[0][1], job[1]), jobs))
            if answers.disagreement is not None:
                for one, value in zip(found_cells, answers.disagreement, strict=True):
                    one["disagreement"] = text(value)
            cells = dict(zip((id(entry) for entry, _ in good), found_cells, strict=True))
        return [
            {"input": entry.input, **({"error": found} if isinstance(found, str) else cells[id(entry)])}
            for entry, found in batch
        ]

    def _ask(self, values: list[Shaped[np.ndarray, "..."]]) -> Answers:
        if self._committee.uses_windows:
            return self._committee.ask_in_windows(values[0])
        return self._committee.ask(np.stack(values))

    def _tell(self, entry: Entry, found: Decoded, mean: Shaped[np.ndarray, "..."]) -> dict[str, object]:
        del entry, found
        return answer_row(mean, self._description, threshold=self._threshold)

    def _write_mask(self, entry: Entry, found: Decoded, mean: Shaped[np.ndarray, "..."]) -> dict[str, object]:
        numbers = class_numbers(mean, self._threshold)
        mask = numbers if found.grid is None else found.grid.restore(numbers)
        name = write_mask(self._folder / MASKS, entry.name, mask, found.grid)
        counts = np.bincount(mask.reshape(-1), minlength=len(self._description.classes))
        voxels = {f"voxels_{name}": int(n) for name, n in zip(self._description.classes, counts, strict=True)}
        return {"mask": f"{MASKS}/{name}", **voxels}

    def _write_image(self, entry: Entry, found: Decoded, mean: Shaped[np.ndarray, "..."]) -> dict[str, object]:
        del found
        return {"image": f"{IMAGES}/{write_array(self._folder / IMAGES, entry.name, mean)}"}


def _try(decode: Callable[[Path], Decoded], path: Path) -> Decoded | str:
    """What was read, or why it could not be read."""
    try:
        return decode(path)
    except DpmedError as error:
        # The row names the input already, but not which of a folder's files is at fault.
        below = error.where.removeprefix(f"{path}{os.sep}") if path.is_dir() else ""
        where = "" if below == error.where else below
        return str(DpmedError(error.problem, where=where, remedy=error.remedy)).removesuffix(".")
    except MemoryError:
        return "does not fit into this machine's memory"
    except Exception as error:  # one hostile file must not stop the work on the others
        return f"cannot be read (unexpected {type(error).__name__}: {error})"


def _ahead(pool: ThreadPoolExecutor, jobs: Iterable[Callable[[], T]], *, window: int) -> Iterator[T]:
    """Results in the order of the jobs, at most `window` of which run or wait at a time."""
    waiting: deque[Future[T]] = deque()
    source = iter(jobs)
    waiting.extend(pool.submit(job) for job in itertools.islice(source, window))
    try:
        while waiting:
            found = waiting.popleft().result()
            waiting.extend(pool.submit(job) for job in itertools.islice(source, 1))
            yield found
    finally:
        for future in waiting:
            future.cancel()


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(itertools.islice(source, size)):
        yield batch


def _fingerprint(job: PredictJob) -> dict[str, Any]:
    committee, digest = job.committee, hashlib.sha256()
    for entry in job.entries:
        digest.update(os.fsencode(entry.input) + b"\0")
    return {
        "models": [member.ledger.model_sha256 or str(member.source) for member in committee.members],
        "threshold": job.threshold,
        "flips": list(job.settings.flips),
        "batch_size": committee.batch_size,
        "inputs": len(job.entries),
        "inputs_sha256": digest.hexdigest(),
    }


def _settle_folder(folder: Path, fingerprint: dict[str, Any]) -> None:
    """Begin a folder, or make sure that it holds the same predictions."""
    path = folder / SETTINGS
    if path.exists():
        known = read_json(path)
        if known == fingerprint:
            return
        changed = [key for key in fingerprint if not isinstance(known, dict) or known.get(key) != fingerprint[key]]
        names = dict.fromkeys(key.removesuffix("_sha256").replace("_", " ") for key in changed)
        raise InputError(
            f"holds predictions that were begun otherwise; what differs: {', '.join(names)}",
            where=str(folder),
            remedy="Choose another folder, or repeat the command that began this one.",
        )
    others = [other.name for other in folder.iterdir() if other.name != ".lock"]
    if others:
        raise InputError("the folder already holds files, and nothing is overwritten", where=str(folder))
    write_json(path, fingerprint)


def _notes(committee: Committee) -> Iterator[str]:
    for member in committee.members:
        reason = member.ledger.reason_against_release
        if reason is not None:
            yield f"{member.source}: the model must stay within your institution, since {reason}."
