"""Decoded samples on disk, so that files are decoded once instead of in every epoch.

One folder per data set and preprocessing, named by a hash of both, holds the samples as one flat file, and the size and
time of every source file. A file that has changed since is decoded again, into a copy that replaces the old one when it
is complete, so that processes reading the old one are not disturbed. Samples are marked as done only after they have
reached the disk; a crash costs the last seconds. If two processes need the same cache, it is built once, and the second
waits.

The cache holds patients' images, so its folder can be read by its owner only.
"""

import contextlib
import hashlib
import json
import mmap
import os
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from dpmed.config.data import FilesTable
from dpmed.data.base import Dataset, Sample
from dpmed.data.storage.file_state import NAMED_FILES, stat_all, summarise
from dpmed.data.storage.reserve import allocate, waiting_lock
from dpmed.data.storage.stored import FileDataset, FromFiles, Listing
from dpmed.errors import DpmedError, InputError, RunError
from dpmed.files import make_folder, read_json, remove_if_possible, user_cache, write_at, write_atomically, write_json
from dpmed.progress import Progress, Task

_VERSION = 3  # version of the layout and of the result of decoding
_BLOCK = 64  # samples given to the threads at once: this many may have to finish before Ctrl-C takes effect
_COPY_BYTES = 1 << 22
# Mapped pages count as resident memory although the system can drop them; above this amount we release them ourselves.
_RESIDENT_BYTES = 1 << 24
_SPARE_BYTES = 1 << 30
_SECONDS_BETWEEN_MARKS = 10.0  # the most that a crash costs; marking a million samples is not a small write
_MAX_WORKERS = 8
_VOLUME_WORKERS = 2  # decoding a volume takes over a hundred megabytes


def cache_folder(config: FilesTable) -> Path | None:
    """Where decoded samples are kept: as configured, else `$XDG_CACHE_HOME/dpmed` or `~/.cache/dpmed`; or None."""
    return (config.cache_folder or user_cache()) if config.cache else None


def cached(dataset: FileDataset, folder: Path, *, progress: Progress) -> Dataset:
    """The data set with its samples decoded beforehand, or the data set itself if the disk has no room for them.

    Args:
        dataset: a data set read from files.
        folder: folder of all caches.
        progress: reports the building.

    Raises:
        InputError: a file is missing or cannot be decoded (all files are checked, and up to ten failures named).
        RunError: the cache cannot be written.
    """
    wanted = stat_all(dataset.sources)
    place = _make_place(folder / "samples") / _key(dataset)
    layout = _read_layout(place / "layout.json")
    if layout is not None:
        ready = _open_complete(dataset, place, layout, wanted)
        if ready is not None:
            return ready
    if layout is None:
        layout = _Layout.of(dataset[0], dataset.listing)
    needed = layout.bytes_per_sample * len(dataset)
    free = shutil.disk_usage(folder).free
    if not place.exists() and needed + _SPARE_BYTES > free:
        progress.say(
            f"The cache of decoded samples would take {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB "
            "free: files are decoded in every epoch instead."
        )
        return dataset
    make_folder(place)
    with waiting_lock(place / "lock", progress):
        ready = _open_complete(dataset, place, layout, wanted)
        if ready is None:
            _Builder(dataset, place, layout, wanted).build(progress)
            ready = _open_complete(dataset, place, layout, wanted)
    if ready is None:
        raise RunError("changed while it was being built", where=str(place), remedy="Run it again.")
    return ready


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Shape and type of every input and target. Targets are stored only where they come from files.

    A target in a table is read from there each time, so that a corrected table needs no new cache.
    """

    input_shape: tuple[int, ...]
    input_dtype: str
    target_shape: tuple[int, ...]
    target_dtype: str

    @classmethod
    def of(cls, sample: Sample, listing: Listing) -> "_Layout":
        return cls(
            input_shape=sample.input.shape,
            input_dtype=sample.input.dtype.str,
            target_shape=sample.target.shape if listing.known_targets is None else (),
            target_dtype=sample.target.dtype.str,
        )

    @property
    def input_bytes(self) -> int:
        return int(np.prod(self.input_shape)) * np.dtype(self.input_dtype).itemsize

    @property
    def target_bytes(self) -> int:
        return int(np.prod(self.target_shape)) * np.dtype(self.target_dtype).itemsize if self.target_shape else 0

    @property
    def bytes_per_sample(self) -> int:
        return self.input_bytes + self.target_bytes


class CachedDataset(FromFiles):
    """Samples from a memory-mapped file; made by `cached`."""

    def __init__(self, dataset: FileDataset, listing: Listing, layout: _Layout, path: Path) -> None:
        super().__init__(dataset.info, listing)
        self._layout = layout
        self._size = len(dataset)
        self._names = dataset.names
        self.sources = dataset.sources
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        rows = np.frombuffer(self._map, np.uint8).reshape(self._size, layout.bytes_per_sample)
        inputs = rows[:, : layout.input_bytes].view(layout.input_dtype)
        self._inputs = inputs.reshape(self._size, *layout.input_shape)
        self._targets: Shaped[np.ndarray, "sample ..."]
        if layout.target_shape:
            targets = rows[:, layout.input_bytes :].view(layout.target_dtype)
            self._targets = targets.reshape(self._size, *layout.target_shape)
        else:
            self._targets = np.asarray(listing.known_targets)
        self._touched = 0
        self._lock = threading.Lock()

    @property
    def names(self) -> Sequence[str]:
        """Names as in the data set of files."""
        return self._names

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Sample:
        self._count(1)
        return Sample(input=self._inputs[index], target=np.asarray(self._targets[index]))

    def gather(
        self, numbers: Int[np.ndarray, " sample"]
    ) -> tuple[Shaped[np.ndarray, "sample *space channel"], Shaped[np.ndarray, "sample ..."]]:
        """Copies of several samples at once."""
        self._count(len(numbers))
        return np.take(self._inputs, numbers, axis=0), np.take(self._targets, numbers, axis=0)

    def _count(self, samples: int) -> None:
        with self._lock:
            self._touched += samples * self._layout.bytes_per_sample
            if self._touched > _RESIDENT_BYTES:
                self._touched = 0
                self._map.madvise(mmap.MADV_DONTNEED)


class _Builder:
    """Fills a cache, or the missing part of it. The caller holds its lock."""

    def __init__(
        self, dataset: FileDataset, place: Path, layout: _Layout, wanted: Int[np.ndarray, "sample stat"]
    ) -> None:
        self._dataset = dataset
        self._place = place
        self._layout = layout
        self._wanted = wanted
        self._marked = time.monotonic()
        self._generation, self._done = self._prepare()

    def build(self, progress: Progress) -> None:
        """Decode all samples that are missing.

        Raises:
            InputError: samples cannot be read; the message names the first of them.
            RunError: the cache cannot be written.
        """
        missing = np.flatnonzero((self._done != self._wanted).any(axis=1))
        failures: list[DpmedError] = []
        workers = _VOLUME_WORKERS if len(self._layout.input_shape) > 3 else _MAX_WORKERS  # noqa: PLR2004 volumes
        name = f"decoding {self._dataset.info.name}"
        descriptor = os.open(self._data, os.O_RDWR)
        try:
            with (
                ThreadPoolExecutor(min(workers, os.cpu_count() or 1)) as pool,
                progress.task(
                    name, total=len(self._wanted), unit="samples", done=len(self._wanted) - len(missing)
                ) as task,
            ):
                for start in range(0, len(missing), _BLOCK):
                    self._build_block(missing[start : start + _BLOCK], descriptor, pool, failures, task)
                    if len(failures) >= NAMED_FILES:
                        break
        except OSError as error:
            raise RunError(f"cannot be written ({error.strerror})", where=str(self._data)) from error
        finally:
            with contextlib.suppress(RunError, OSError):  # a full disk has been reported already
                self._mark(descriptor)
            os.close(descriptor)
        if failures:
            raise summarise(failures)
        self._publish()

    def _build_block(
        self,
        numbers: Int[np.ndarray, " sample"],
        descriptor: int,
        pool: ThreadPoolExecutor,
        failures: list[DpmedError],
        task: Task,
    ) -> None:
        def one(number: int) -> DpmedError | None:
            try:
                content = self._bytes(number)
            except InputError as error:
                return error
            offset = number * self._layout.bytes_per_sample
            write_at(descriptor, content, offset)
            return None

        for number, error in zip(numbers.tolist(), pool.map(one, numbers.tolist()), strict=True):
            task.advance()
            if error is not None:
                failures.append(error)
                continue
            self._done[number] = self._wanted[number]
            if time.monotonic() - self._marked >= _SECONDS_BETWEEN_MARKS:
                self._mark(descriptor)

    def _mark(self, descriptor: int) -> None:
        """Record what has been decoded, once it has reached the disk."""
        os.fsync(descriptor)
        self._write_done()
        self._marked = time.monotonic()

    def _bytes(self, number: int) -> bytes:
        sample = self._dataset[number]
        if _Layout.of(sample, self._dataset.listing) != self._layout:
            raise InputError(
                f"becomes {sample.input.dtype} of shape {sample.input.shape}, but the first sample "
                f"{np.dtype(self._layout.input_dtype)} of shape {self._layout.input_shape}",
                where=str(self._dataset.sources[number][0]),
            )
        content = np.ascontiguousarray(sample.input).tobytes()
        return content + np.ascontiguousarray(sample.target).tobytes() if self._layout.target_shape else content

    @property
    def _data(self) -> Path:
        return _data_path(self._place, self._generation)

    def _prepare(self) -> tuple[int, Int[np.ndarray, "sample stat"]]:
        """The generation to build, and which of its samples are done."""
        write_json(self._place / "layout.json", {**self._layout.__dict__, "version": _VERSION})
        current = _read_current(self._place)
        generation = 0 if current is None else current + 1
        size = self._layout.bytes_per_sample * len(self._wanted)
        done = _read_done(self._place, generation, self._wanted.shape)
        path = _data_path(self._place, generation)
        if done is not None and path.exists() and path.stat().st_size == size:
            return generation, done
        done = np.full(self._wanted.shape, -1, np.int64)
        if current is not None:
            previous = _read_done(self._place, current, self._wanted.shape)
            old = _data_path(self._place, current)
            if previous is not None and old.exists() and old.stat().st_size == size:
                write_atomically(path, lambda file: _copy(old, file))
                done = previous
                done[(done != self._wanted).any(axis=1)] = -1
        if not path.exists() or path.stat().st_size != size:
            allocate(path, size)
        self._generation, self._done = generation, done
        self._write_done()
        return generation, done

    def _write_done(self) -> None:
        content = self._done.tobytes()
        path = _done_path(self._place, self._generation)
        write_atomically(path, lambda file: file.write(content + hashlib.sha256(content).digest()))

    def _publish(self) -> None:
        write_json(self._place / "current.json", {"generation": self._generation})
        for path in self._place.glob("samples-*.bin"):
            if path != self._data:
                remove_if_possible(path)
        for path in self._place.glob("done-*.bin"):
            if path != _done_path(self._place, self._generation):
                remove_if_possible(path)


def _make_place(folder: Path) -> Path:
    try:
        return make_folder(folder)
    except InputError as error:
        remedy = "Choose another data.cache_folder, or set data.cache = false."
        raise InputError(error.problem, where=error.where, remedy=remedy) from error


def _key(dataset: FileDataset) -> str:
    # The resolved path of the folder, so that the same names elsewhere count as other files.
    root = os.path.realpath(dataset.root)
    digest = hashlib.sha256(json.dumps([_VERSION, root, dict(dataset.preprocessing)], sort_keys=True).encode())
    for files in dataset.sources:
        digest.update("\0".join([*map(str, files), ""]).encode() + b"\n")
    return digest.hexdigest()[:32]


def _open_complete(
    dataset: FileDataset, place: Path, layout: _Layout, wanted: Int[np.ndarray, "sample stat"]
) -> CachedDataset | None:
    generation = _read_current(place)
    done = None if generation is None else _read_done(place, generation, wanted.shape)
    if generation is None or done is None or not np.array_equal(done, wanted):
        return None
    path = _data_path(place, generation)
    try:
        if path.stat().st_size != layout.bytes_per_sample * len(wanted):
            return None
        return CachedDataset(dataset, dataset.listing, layout, path)
    except OSError:
        return None


def _read_layout(path: Path) -> _Layout | None:
    try:
        content = read_json(path)
        if content["version"] != _VERSION:
            return None
        return _Layout(
            input_shape=tuple(map(int, content["input_shape"])),
            input_dtype=np.dtype(content["input_dtype"]).str,
            target_shape=tuple(map(int, content["target_shape"])),
            target_dtype=np.dtype(content["target_dtype"]).str,
        )
    except (InputError, KeyError, TypeError, ValueError, OverflowError):
        return None


def _read_current(place: Path) -> int | None:
    try:
        return int(read_json(place / "current.json")["generation"])
    except (InputError, KeyError, TypeError, ValueError, OverflowError):
        return None


def _read_done(place: Path, generation: int, shape: tuple[int, ...]) -> Int[np.ndarray, "sample stat"] | None:
    try:
        content = _done_path(place, generation).read_bytes()
    except OSError:
        return None
    body, digest = content[:-32], content[-32:]
    if len(body) != 8 * int(np.prod(shape)) or hashlib.sha256(body).digest() != digest:
        return None
    return np.frombuffer(body, np.int64).reshape(shape).copy()


def _data_path(place: Path, generation: int) -> Path:
    return place / f"samples-{generation}.bin"


def _done_path(place: Path, generation: int) -> Path:
    return place / f"done-{generation}.bin"


def _copy(source: Path, target: Any) -> None:
    with source.open("rb") as file:
        shutil.copyfileobj(file, target, _COPY_BYTES)
