"""What several processes may share on disk: locks, preallocated files, unpacked arrays."""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from dpmed.errors import RunError
from dpmed.files import FILE_MODE, make_folder, remove_if_possible, unlockable, writing_to
from dpmed.progress import Progress

_VERSION = 1
_SECONDS_BETWEEN_TRIES = 0.1


def allocate(path: Path, size: int) -> None:
    """A file of `size` bytes whose room on the disk is reserved: writing to it later cannot find the disk full.

    Raises:
        RunError: there is no room; no file is left behind.
    """
    with writing_to(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        remove_if_possible(path)
        remedy = "Free some space, choose another data.cache_folder, or set data.cache = false."
        raise RunError(f"needs {size / 1e9:.1f} GB ({error.strerror})", where=str(path), remedy=remedy) from error
    finally:
        os.close(descriptor)


@contextmanager
def waiting_lock(path: Path, progress: Progress, *, doing: str = "decoding the same data set") -> Iterator[None]:
    """Hold a lock file; wait while another process does, which is `doing` this. It is freed even by `kill -9`.

    Raises:
        RunError: the file cannot be made, or its file system has no locks.
    """
    with writing_to(path):
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, FILE_MODE)
    try:
        told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    progress.say(f"Another process is {doing}; waiting for it.")
                    told = True
                time.sleep(_SECONDS_BETWEEN_TRIES)
            except OSError as error:
                raise unlockable(path, error) from error
        yield
    finally:
        os.close(descriptor)


class Archive:
    """One large array that is unpacked from a file once, and then memory-mapped.

    Args:
        folder: folder of all caches.
        source: the file it comes from; if that changes, it is unpacked again.
        shape: shape of the array.
        dtype: type of the array.
    """

    def __init__(self, folder: Path, source: Path, *, shape: tuple[int, ...], dtype: np.dtype) -> None:
        stat = source.stat()
        name = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:24]
        stamp = json.dumps([_VERSION, stat.st_size, stat.st_mtime_ns, list(shape), dtype.str])
        self._folder = make_folder(make_folder(folder) / "archives")
        self._prefix = name
        self._path = self._folder / f"{name}-{hashlib.sha256(stamp.encode()).hexdigest()[:24]}.bin"
        self._shape = shape
        self._dtype = dtype

    def open(self, fill: Callable[[np.ndarray], None], progress: Progress) -> Shaped[np.ndarray, "..."]:
        """The array, read-only; `fill` writes it if it is missing."""
        if not self._path.exists():
            with waiting_lock(self._folder / f"{self._prefix}.lock", progress):
                if not self._path.exists():
                    self._build(fill)
        return np.memmap(self._path, self._dtype, "r", shape=self._shape)

    def _build(self, fill: Callable[[np.ndarray], None]) -> None:
        part = self._path.with_suffix(".part")
        allocate(part, int(np.prod(self._shape)) * self._dtype.itemsize)
        array = np.memmap(part, self._dtype, "r+", shape=self._shape)
        fill(array)
        array.flush()
        with writing_to(self._path):
            part.replace(self._path)
        for path in self._folder.glob(f"{self._prefix}-*"):
            if path != self._path:
                remove_if_possible(path)
