"""Checks whether the files of a sample are still those it was decoded from, with one message for all failures."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from dpmed.errors import DpmedError, InputError

NAMED_FILES = 10


def stat_all(sources: Sequence[tuple[Path, ...]]) -> Int[np.ndarray, "sample stat"]:
    """Two numbers per sample that change when one of its files does: their total size, and a digest of size and time.

    A folder among the files, such as a series, stands for its content.

    Raises:
        InputError: files are missing; up to ten are named.
    """
    rows = np.empty((len(sources), 2), np.int64)
    missing: list[DpmedError] = []
    for row, files in zip(rows, sources, strict=True):
        stats = []
        for path in files:
            try:
                for one in sorted(path.iterdir()) if path.is_dir() else [path]:
                    stat = one.stat()
                    stats.append((stat.st_size, stat.st_mtime_ns))
            except OSError as error:
                missing.append(InputError(f"cannot be opened ({error.strerror})", where=str(path)))
        digest = hashlib.blake2b(repr(stats).encode(), digest_size=7).digest()  # positive as int64
        row[:] = sum(size for size, _ in stats), int.from_bytes(digest)
    if missing:
        raise summarise(missing)
    return rows


def summarise(failures: Sequence[DpmedError]) -> InputError:
    """One error for all files that cannot be used, the first ten by name."""
    first = failures[0]
    if len(failures) == 1:
        return InputError(first.problem, where=first.where, remedy=first.remedy)
    named = "; ".join(str(failure) for failure in failures[:NAMED_FILES])
    more = " and more" if len(failures) >= NAMED_FILES else ""
    return InputError(f"{len(failures)}{more} files cannot be used: {named}")
