"""Files that are complete or absent, folders that only their owner can read, paths that stay inside their root.

Everything dpmed writes goes through here: first to a temporary file beside the target, flushed to the disk, then
renamed over it. A crash, a full disk or Ctrl-C therefore leaves the old file or the new one, never half of one. Run
folders contain traces of patients, so folders are created with mode 0700 and files with 0600.
"""

import contextlib
import csv
import ctypes
import errno
import hashlib
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from dpmed.errors import InputError, RunError

# Files of a run that rooms name which do not import each other.
CONFIG_FILE = "config.toml"
EQX_FILE = "model.eqx"
FOLDER_MODE = 0o700
FILE_MODE = 0o600
# Since Python 3.13, `Path.resolve` ends at a circle of links without an error.
_RESOLVES_CIRCLES = sys.version_info >= (3, 13)
# Linux's constants for renameat2: AT_FDCWD (fcntl.h) and RENAME_NOREPLACE (stdio.h).
_AT_WORKING_FOLDER, _NEVER_REPLACE = -100, 1


def write_atomically(path: Path, write: Callable[[BinaryIO], object], *, durable: bool = True) -> None:
    """Let `write` fill a temporary file, then rename it to `path`.

    Args:
        path: the target; its folder must exist.
        write: receives a binary file open for writing.
        durable: whether it is guaranteed to be on the disk when this returns. Not worth the time for thousands of files
            that can be made again, such as phantoms; they too are complete or absent, except after a power cut.

    Raises:
        RunError: the disk is full or the folder cannot be written to; `path` is unchanged.
    """
    with writing_to(path):
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.chmod(name, FILE_MODE)
            os.replace(name, path)
            if durable:
                sync_folder(path.parent)
        except BaseException:
            # What ails the disk may forbid this as well; the first error is the one to tell.
            remove_if_possible(Path(name))
            raise


def write_at(descriptor: int, content: bytes, place: int) -> None:
    """Write all of `content` at `place` of an open file; the system may take it in parts.

    Raises:
        OSError: it takes no more.
    """
    while content:
        taken = os.pwrite(descriptor, content, place)
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        content, place = content[taken:], place + taken


def place_new(path: Path, place: Path) -> None:
    """Give a file its final name, never in the place of another, even if that is made at the same moment.

    Raises:
        FileExistsError: another file has that name.
        OSError: the file system can do neither.
    """
    try:
        os.link(path, place)
    except FileExistsError:
        raise
    except OSError:
        # No hard links, as on FAT and some network file systems. Linux can rename without replacing.
        rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        if rename is None:
            raise
        names = os.fsencode(path), os.fsencode(place)
        if rename(_AT_WORKING_FOLDER, names[0], _AT_WORKING_FOLDER, names[1], _NEVER_REPLACE):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(place)) from None


def remove_if_possible(path: Path) -> None:
    """Remove what nobody needs any more; where the system forbids it, it stays, and nothing else suffers."""
    with contextlib.suppress(OSError):
        path.unlink()


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut, if the system allows it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write `content` to `path`, whole or not at all; see `write_atomically`."""
    write_atomically(path, lambda file: file.write(content), durable=durable)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` as UTF-8, whole or not at all."""
    write_bytes(path, content.encode("utf-8"))


def to_json(content: object) -> str:
    """JSON as dpmed writes it: indented, UTF-8, and strict, so NaN and infinity become null.

    Bytes of a file name that are no UTF-8 become the escapes by which Python reads the same name again.
    """
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace").decode()


def write_json(path: Path, content: object) -> None:
    """Write `content` to `path` as JSON, whole or not at all."""
    write_text(path, to_json(content))


def read_json(path: Path) -> Any:
    """Read a JSON file that dpmed wrote.

    Raises:
        InputError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot be read as JSON ({error})", where=str(path)) from error


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Raises:
        InputError: the file is missing or unreadable.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path)) from error


def write_csv(path: Path, rows: Iterable[Mapping[str, object]], columns: Sequence[str] | None = None) -> None:
    """Write a table, whole or not at all; a missing value stays empty.

    Args:
        path: the target.
        rows: their values by the names of the columns.
        columns: the header; None for every name in `rows`, in the order of first appearance.
    """
    write_text(path, to_csv(rows, columns))


def to_csv(rows: Iterable[Mapping[str, object]], columns: Sequence[str] | None = None) -> str:
    """A table as `write_csv` writes it, with the same arguments."""
    if columns is None:
        rows = list(rows)
        columns = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return buffer.getvalue()


def make_folder(path: Path) -> Path:
    """Create `path`, readable by its owner only, and any missing parents.

    Raises:
        InputError: a file is in the way, or the folder cannot be created.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        if not path.is_dir():
            raise NotADirectoryError(f"{path} is a file")
    except OSError as error:
        remedy = "Choose another folder with --out."
        raise InputError(
            f"the folder cannot be created ({error.strerror or error})", where=str(path), remedy=remedy
        ) from error
    return path


def user_cache() -> Path:
    """Dpmed's folder for files that can be made again: `$XDG_CACHE_HOME/dpmed` or `~/.cache/dpmed`.

    Raises:
        InputError: the user has no home folder, as in a container under a number that has no name.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "dpmed"
    except RuntimeError as error:
        remedy = "Set HOME, or XDG_CACHE_HOME to a folder of yours."
        raise InputError("this user has no home folder, so there is no place for caches", remedy=remedy) from error


def utc_now() -> str:
    """The time as files state it: UTC, to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _time_stamp() -> str:
    """The local time in sortable form."""
    return datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")


def new_run_folder(out: Path | None, *, command: str, config_name: str) -> Path:
    """The folder that a run writes to: `out` itself, or a new one under `runs/`.

    Args:
        out: the folder the user asked for; it is created if missing and must be empty.
        command: `train`, `bounds`, …
        config_name: the config's name without path and extension.

    Raises:
        InputError: `out` holds another run, or cannot be created.
        RunError: no name is left for a new one.
    """
    if out is not None:
        if _holds_files(out):
            continuing = ", or continue a training run with --resume" if command == "train" else ""
            remedy = f"Choose an empty or new folder with --out{continuing}."
            raise InputError(
                "the folder already holds files, and nothing is overwritten", where=str(out), remedy=remedy
            )
        return make_folder(out)
    parent, time = make_folder(Path("runs")), _time_stamp()
    for number in range(1, 10_000):
        folder = parent / (f"{command}-{config_name}-{time}" + (f"-{number}" if number > 1 else ""))
        try:
            folder.mkdir(mode=FOLDER_MODE)
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"the folder cannot be created ({error.strerror})", where=str(folder)) from error
        return folder
    raise RunError("no free name is left under runs/")


def _holds_files(folder: Path) -> bool:
    try:
        return folder.is_dir() and any(folder.iterdir())
    except OSError as error:  # a name that is too long, or a folder that must not be read
        remedy = "Choose another folder with --out."
        raise InputError(f"cannot be used ({error.strerror})", where=str(folder), remedy=remedy) from error


def inside(root: Path, relative: str | os.PathLike[str]) -> Path:
    """`root / relative`, after checking that it is inside `root`, with links followed.

    Raises:
        InputError: the path is absolute, climbs out with `..`, leaves through a link, or is none at all.
    """
    resolved_root = root.resolve()
    try:
        target = (resolved_root / relative).resolve()
    except (ValueError, OSError, RuntimeError) as error:  # a NUL, or a circle of links
        raise _no_path(root, relative) from error
    if not target.is_relative_to(resolved_root):
        raise InputError(f"{os.fspath(relative)!r} leads out of the folder", where=str(root))
    if _RESOLVES_CIRCLES:
        try:
            target.stat()
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _no_path(root, relative) from error
    return target


def _no_path(root: Path, relative: str | os.PathLike[str]) -> InputError:
    return InputError(f"{os.fspath(relative)!r} is no path", where=str(root))


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two processes do not write the same folder; freed even by `kill -9`.

    Raises:
        InputError: another process holds it.
        RunError: the file cannot be made, or its file system has no locks.
    """
    import fcntl

    with writing_to(path):
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, FILE_MODE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError("another dpmed process is using this folder", where=str(path.parent)) from error
        except OSError as error:
            raise unlockable(path, error) from error
        yield
    finally:
        os.close(descriptor)


def unlockable(path: Path, error: OSError) -> RunError:
    """What is to be said where a file cannot be locked, as on some network file systems."""
    problem = f"cannot be locked ({error.strerror or error})"
    return RunError(
        problem, where=str(path), remedy="Choose a folder on a file system with locks, such as a local disk."
    )


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """A context in which the system's refusals are told as one message about `path`.

    Raises:
        RunError: the system refused to make, write or rename a file.
    """
    try:
        yield
    except OSError as error:
        remedy = "What was there before is unchanged; free some space or choose another folder."
        problem = f"could not be written ({error.strerror or error})"
        raise RunError(problem, where=str(path), remedy=remedy) from error


def _finite(content: object) -> object:
    if isinstance(content, float) and not math.isfinite(content):
        return None
    if isinstance(content, Mapping):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return content
