"""Features of samples on disk: the output of a frozen network, computed once instead of in every step.

One file per network and data, named by a digest of both: features, targets, and a SHA-256 of all. A file with a wrong
digest is made again. It is written under a temporary name and renamed, so that it is whole or absent; the oldest files
are removed when a folder would exceed `MOST_BYTES`.

Like images, features are patient data: the folder belongs to its owner alone, and one that others can enter is not
used.
"""

import contextlib
import hashlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float, Int, Shaped

from dpmed.data.base import Dataset, Derived, Sample
from dpmed.data.storage.reserve import waiting_lock
from dpmed.errors import InputError, RunError
from dpmed.files import make_folder, write_atomically
from dpmed.progress import Progress

FOLDER = "features"
MOST_BYTES = 4 << 30
_SPARE_BYTES = 1 << 30
_READ_BYTES = 1 << 22
_DIGEST_BYTES = 32
_OTHERS = 0o077
_ABANDONED_SECONDS = 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The content of a file of features, in this order.

    Attributes:
        samples: number of samples.
        feature_shape: shape of one sample's features; float32.
        target_shape: shape of one sample's target.
        target_dtype: type of the targets.
    """

    samples: int
    feature_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    target_dtype: str

    @property
    def feature_bytes(self) -> int:
        """Bytes of all features."""
        return 4 * self.samples * math.prod(self.feature_shape)

    @property
    def total_bytes(self) -> int:
        """Bytes of the file."""
        targets = self.samples * math.prod(self.target_shape) * np.dtype(self.target_dtype).itemsize
        return self.feature_bytes + targets + _DIGEST_BYTES


Batches = Iterator[tuple[Float[np.ndarray, "sample ..."], Shaped[np.ndarray, "sample ..."]]]


class FeatureDataset(Derived):
    """A data set whose samples are features; only those requested are present.

    Args:
        dataset: the data set that the features were computed from; provides everything but inputs and targets.
        numbers: increasing numbers of the samples that are present.
        features: features of these samples.
        targets: targets of these samples.
    """

    def __init__(
        self,
        dataset: Dataset,
        numbers: Int[np.ndarray, " kept"],
        features: Float[np.ndarray, "kept ..."],
        targets: Shaped[np.ndarray, "kept ..."],
    ) -> None:
        super().__init__(dataset)
        self._rows = {int(number): row for row, number in enumerate(numbers)}
        self._features = features
        self._targets = targets

    def __getitem__(self, index: int) -> Sample:
        row = self._rows[int(index)]
        return Sample(input=np.array(self._features[row]), target=np.array(self._targets[row]))

    def gather(
        self, numbers: Int[np.ndarray, " sample"]
    ) -> tuple[Shaped[np.ndarray, "sample ..."], Shaped[np.ndarray, "sample ..."]]:
        """Copies of several samples at once."""
        rows = np.array([self._rows[number] for number in numbers.tolist()], np.int64)
        return np.take(self._features, rows, axis=0), np.take(self._targets, rows, axis=0)


def kept_features(
    base: Path, key: str, layout: Layout, make: Callable[[], Batches], progress: Progress
) -> tuple[Float[np.ndarray, "sample ..."], Shaped[np.ndarray, "sample ..."]] | None:
    """Features and targets from a file, which is made if it is missing or damaged.

    Args:
        base: folder of all caches.
        key: digest of everything that the features depend on.
        layout: layout of the file.
        make: gives features and targets of all samples, in order.
        progress: reports why there is no file.

    Returns:
        Read-only arrays; None if features are not kept because there is no room or others could read them.
    """
    folder = _own_folder(base, progress)
    if folder is None:
        return None
    path = folder / f"{key}.features"
    found = _read(path, key, layout)
    if found is not None:
        return found
    try:
        with waiting_lock(folder / f"{key}.lock", progress, doing="computing the same features"):
            found = _read(path, key, layout)  # the process that held the lock may have made it
            if found is None and _make_room(folder, layout.total_bytes, progress):
                write_atomically(path, lambda file: _write(file, key, layout, make()))
                found = _read(path, key, layout)
    except (RunError, OSError) as error:
        progress.say(f"Features are not kept: {error}")
    return found


def _own_folder(base: Path, progress: Progress) -> Path | None:
    try:
        folder = make_folder(base / FOLDER)
        state = folder.lstat()
    except (InputError, OSError) as error:
        progress.say(f"Features are not kept: {error}")
        return None
    if folder.is_symlink() or state.st_uid != os.getuid() or state.st_mode & _OTHERS:
        progress.say(f"Features are not kept: {folder} is a link or others can access it. Use chmod 700, or remove it.")
        return None
    return folder


def _make_room(folder: Path, needed: int, progress: Progress) -> bool:
    """Whether the folder may take this many bytes more, after removing its oldest files."""
    files = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may also be removing files
            state = path.lstat()
            if path.suffix == ".features":
                files.append((state.st_mtime, state.st_size, path))
            elif path.suffix == ".tmp" and state.st_mtime < time.time() - _ABANDONED_SECONDS:
                path.unlink()
    total = sum(size for _, size, _ in files)
    free = shutil.disk_usage(folder).free
    room = min(MOST_BYTES, free + total - _SPARE_BYTES)
    if needed > room:
        progress.say(
            f"Features would take {needed / 1e9:.1f} GB, but {folder} may hold {max(room, 0) / 1e9:.1f} GB: the whole "
            "network is computed in every step instead."
        )
        return False
    for _, size, path in sorted(files):
        if total + needed <= room:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
    return True


def _write(file: BinaryIO, key: str, layout: Layout, batches: Batches) -> None:
    digest = hashlib.sha256(key.encode())
    targets = []
    for features, own in batches:
        content = np.ascontiguousarray(features, np.float32).tobytes()
        digest.update(content)
        file.write(content)
        targets.append(own)
    content = np.ascontiguousarray(np.concatenate(targets), layout.target_dtype).tobytes()
    digest.update(content)
    file.write(content)
    file.write(digest.digest())


def _read(
    path: Path, key: str, layout: Layout
) -> tuple[Float[np.ndarray, "sample ..."], Shaped[np.ndarray, "sample ..."]] | None:
    """The content of a file; None if it is missing, damaged or belongs to someone else."""
    digest = hashlib.sha256(key.encode())
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(descriptor).st_size != layout.total_bytes:
                return None
            left = layout.total_bytes - _DIGEST_BYTES
            while left:
                part = file.read(min(left, _READ_BYTES))
                if not part:
                    return None
                digest.update(part)
                left -= len(part)
            if file.read() != digest.digest():
                return None
            os.utime(descriptor)
            # A map of the same file that was checked, even if its name now refers to another.
            content = np.memmap(file, np.uint8, "r")
    except OSError:
        return None
    features = content[: layout.feature_bytes].view(np.float32).reshape(layout.samples, *layout.feature_shape)
    targets = content[layout.feature_bytes : -_DIGEST_BYTES].view(layout.target_dtype)
    return features, targets.reshape(layout.samples, *layout.target_shape)
