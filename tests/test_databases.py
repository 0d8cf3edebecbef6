"""SQLite files: whole or absent, private, and every error is a message about the file."""

import errno
import os
import sqlite3
import sys

import pytest

from dpmed.databases import explained, make_database, open_database
from dpmed.errors import InputError, RunError


def fill(connection):
    connection.execute("CREATE TABLE facts (value TEXT)")
    connection.execute("INSERT INTO facts VALUES ('first')")


def test_a_file_is_made_once_and_only_its_owner_can_read_it(tmp_path):
    path = tmp_path / "folder" / "x.db"
    make_database(path, fill, what="list")
    make_database(path, lambda connection: connection.execute("CREATE TABLE facts (other TEXT)"), what="list")
    connection = open_database(path, what="list")
    assert connection.execute("SELECT value FROM facts").fetchall() == [("first",)]
    connection.close()
    assert path.stat().st_mode & 0o077 == 0 and [one.name for one in path.parent.iterdir()] == ["x.db"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others rename only by replacing")
def test_a_file_system_without_hard_links_will_do(tmp_path, monkeypatch):
    def no_links(source, target):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "x.db"
    make_database(path, fill, what="list")
    # A slower process finds the file of a faster one.
    fill_second = "INSERT INTO facts VALUES ('second')"
    make_database(path, lambda connection: (fill(connection), connection.execute(fill_second)), what="list")
    connection = open_database(path, what="list")
    assert connection.execute("SELECT value FROM facts").fetchall() == [("first",)]
    connection.close()
    assert path.stat().st_mode & 0o077 == 0 and [one.name for one in tmp_path.iterdir()] == ["x.db"]


def test_a_file_that_cannot_be_filled_is_not_made(tmp_path):
    def fail(connection):
        fill(connection)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_database(tmp_path / "x.db", fail, what="list")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (sqlite3.OperationalError("no such table: facts"), InputError, "is not a list"),
        (sqlite3.OperationalError("Could not decode to UTF-8"), InputError, "is not a list, or is damaged"),
        (sqlite3.OperationalError("database is locked"), RunError, "cannot be used now"),
        (sqlite3.DatabaseError("file is not a database"), InputError, "or is damaged"),
        (OSError(28, "No space left on device"), RunError, "cannot be written"),
    ],
)
def test_errors_are_messages_about_the_file(tmp_path, error, kind, message):
    with pytest.raises(kind, match=message), explained(tmp_path / "x.db", what="list"):
        raise error
