"""What the files of an image hold, as a name that the image keeps when they are copied, renamed or moved."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from dpmed.data.decode.recognise import slices_in
from dpmed.errors import InputError
from dpmed.files import digest_of
from dpmed.progress import Progress

_MAX_WORKERS = 8
# Several runs of one call enter a cohort with the same files.
_MOST_KNOWN = 1 << 20


def content_names(images: Sequence[Sequence[Path]], progress: Progress) -> list[str]:
    """A name for each image by what its files hold, wherever these lie, whatever they are called, in any order.

    Two images have the same name only if their files hold the same bytes. A file that was written anew, with other
    compression or another header, holds others.

    Args:
        images: the files of each image; a folder stands for the slices of a series in it.
        progress: shows how many images have been read.

    Raises:
        InputError: a file cannot be read.
    """
    names = []
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_WORKERS), thread_name_prefix="contents")
    try:
        with progress.task("identifying images", total=len(images), unit="images") as task:
            for name in pool.map(_content_name, images):
                names.append(name)
                task.advance()
    finally:
        # After an error or Ctrl-C nobody wants the rest.
        pool.shutdown(cancel_futures=True)
    return names


def _content_name(files: Sequence[Path]) -> str:
    found = sorted(digest for path in files for digest in _digests(path))
    return found[0] if len(found) == 1 else hashlib.sha256(" ".join(found).encode()).hexdigest()


def _digests(path: Path) -> list[str]:
    try:
        return [_digest(file) for file in (slices_in(path) if path.is_dir() else [path])]
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path)) from error


def _digest(path: Path) -> str:
    state = path.stat()
    return _known_digest(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=_MOST_KNOWN)
def _known_digest(path: Path, size: int, modified: int) -> str:
    del size, modified
    return digest_of(path)
