"""Downloads that can be resumed, and archives that cannot write outside their folder.

Received data are kept as `NAME.part` until the checksum is right; a second call requests only the missing part.
"""

import hashlib
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from dpmed.errors import InputError, RunError
from dpmed.files import exclusive_lock, make_folder, sync_folder, write_atomically
from dpmed.progress import Progress

_CHUNK_BYTES = 1 << 18
_SECONDS = 30.0
_PARTIAL = 206

OpenUrl = Callable[[str, Mapping[str, str]], Any]


def open_url(url: str, headers: Mapping[str, str]) -> Any:
    """A response object of the standard library; https only, so that it cannot be forged on the way."""
    if not url.startswith("https://"):
        raise ValueError(f"Expected {url=} to begin with https://.")
    return urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=_SECONDS)  # noqa: S310


def download(url: str, target: Path, *, md5: str, size: int, progress: Progress, open_url: OpenUrl = open_url) -> None:
    """Fetch a file with a known checksum, continuing where an earlier call stopped.

    Args:
        url: its address.
        target: where to put it; its folder is created.
        md5: the checksum published by its source (no defence against that source).
        size: size of the file in bytes, for the progress bar; no more is accepted.
        progress: shows the progress.
        open_url: opens an address with headers.

    Raises:
        RunError: the network or the server failed; received data are kept.
        InputError: the received file is not the right one; it is deleted.
    """
    make_folder(target.parent)
    part = target.with_name(target.name + ".part")
    with exclusive_lock(target.with_name(target.name + ".lock")):
        if part.exists() and part.stat().st_size > size:
            part.unlink()
        done = part.stat().st_size if part.exists() else 0
        if done < size:
            try:
                with progress.task(f"downloading {target.name}", total=size, unit="bytes", done=done) as task:
                    _fetch(url, part, done, limit=size, advance=task.advance, open_url=open_url)
            except (OSError, urllib.error.URLError) as error:
                raise RunError(
                    f"cannot be downloaded ({getattr(error, 'reason', error)}); received data are kept",
                    where=url,
                    remedy=f"Run it again to continue, or download it elsewhere and save it as {target}.",
                ) from error
        if _md5(part) != md5:
            part.unlink()
            raise InputError(
                "was received with a wrong checksum and has been deleted", where=url, remedy="Run it again."
            )
        part.replace(target)
        sync_folder(target.parent)


def _fetch(url: str, part: Path, done: int, *, limit: int, advance: Callable[..., None], open_url: OpenUrl) -> None:
    headers = {"User-Agent": "dpmed", **({"Range": f"bytes={done}-"} if done else {})}
    with open_url(url, headers) as response:
        # A server that ignores the range sends everything again, so we start from the beginning.
        resumed = done > 0 and response.status == _PARTIAL
        if done and not resumed:
            advance(-done)
        total = done if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(_CHUNK_BYTES):
                total += len(chunk)
                if total > limit:
                    raise OSError("the server sends more than the file has")
                file.write(chunk)
                advance(len(chunk))
    if total < limit:
        raise OSError(f"the connection ended after {total:,} of {limit:,} bytes")


def extract_named(archive: Path, names: Sequence[str], folder: Path) -> None:
    """Extract files with known names from a tar archive, wherever they are in it, and write them to `folder`.

    Paths in the archive are never used for writing; an archive that tries to write elsewhere is refused as a whole.

    Raises:
        InputError: it is damaged, holds absolute or climbing paths or links, or lacks a file.
    """
    missing = set(names)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
                    raise InputError(
                        f"holds {member.name!r}, which leads out of its folder or is a link or device",
                        where=str(archive),
                    )
                stream = tar.extractfile(member) if path.name in missing and member.isfile() else None
                if stream is not None:
                    write_atomically(folder / path.name, partial(_copy, stream))
                    missing.discard(path.name)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise InputError(
            f"is a damaged archive ({error})", where=str(archive), remedy="Delete it and run again."
        ) from error
    if missing:
        raise InputError(f"lacks {', '.join(sorted(missing))}", where=str(archive))


def _copy(source: Any, target: Any) -> None:
    while chunk := source.read(_CHUNK_BYTES):
        target.write(chunk)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
