"""SQLite files that only their owner can read, made whole or not at all; SQLite's errors as messages about the file."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from dpmed.errors import InputError, RunError
from dpmed.files import FILE_MODE, make_folder, place_new, remove_if_possible, sync_folder

_SECONDS_TO_WAIT = 60.0


def make_database(path: Path, fill: Callable[[sqlite3.Connection], None], *, what: str) -> None:
    """Make the file beside its place, then link it there; if another process was faster, its file stays.

    Args:
        path: the file; its folder is made if it is missing.
        fill: writes tables and rows, in one transaction.
        what: what the file is called in messages, such as `cohort file`.

    Raises:
        RunError: it cannot be written.
    """
    with explained(path, what=what):
        make_folder(path.parent)
        beside = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
        os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_RDWR, FILE_MODE))
        try:
            with closing(sqlite3.connect(beside, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("BEGIN")
                fill(connection)
                connection.execute("COMMIT")
            with suppress(FileExistsError):
                place_new(beside, path)
            sync_folder(path.parent)
        finally:
            remove_if_possible(beside)


def open_database(path: Path, *, what: str) -> sqlite3.Connection:
    """An existing file, open for reading and writing; transactions begin and end as the caller says.

    Raises:
        InputError: it is no such file, or is damaged.
        RunError: another process has held it for a minute.
    """
    with explained(path, what=what):
        # The rollback journal, not the write-ahead log, because its locks also work on shared file systems.
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_SECONDS_TO_WAIT)
        connection.isolation_level = None
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA synchronous = FULL")
        return connection


@contextmanager
def explained(path: Path, *, what: str) -> Iterator[None]:
    """SQLite's errors as messages for the user.

    Args:
        path: the file.
        what: what the file should be, such as `cohort file`.

    Raises:
        InputError: the file is something else, or is damaged.
        RunError: the disk is full, or another process holds the file.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        # What SQLite says of a file without our tables, and of a header that it does not know.
        if any(words in str(error) for words in ("no such", "unsupported file format")):
            raise InputError(f"is not a {what}", where=str(path)) from error
        if "Could not decode" in str(error):
            raise _damaged(path, what, error) from error
        remedy = "Is the disk full, or the file write-protected? Its file system must have locks, as local disks have."
        raise RunError(f"cannot be used now ({error})", where=str(path), remedy=remedy) from error
    # SQLite quotes a damaged schema in its message, which Python then cannot decode.
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise _damaged(path, what, error) from error
    except OSError as error:
        raise RunError(f"cannot be written ({error.strerror})", where=str(path)) from error


def _damaged(path: Path, what: str, error: Exception) -> InputError:
    problem = f"is not a {what}, or is damaged ({error})"
    return InputError(problem, where=str(path), remedy="Restore a copy, or choose another.")
