"""The cohort file: which units took part in which runs, to account for all runs on the same patients together.

An SQLite file that only its owner can read. It holds units as keyed hashes of their names; the key is created with the
file and never leaves it. A unit may have several names, any of which means it; units that a run shows to be the same
are one from then on, with the runs of each. A run is entered before its first step, and counts with all its planned
steps, however many it makes: when it stops may depend on the data, and ε at such a time would be no bound. Every change
is one transaction that is on the disk before the call returns, and two runs entering at the same time are admitted one
after the other.
"""

import hmac
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from dpmed.databases import explained, make_database, open_database
from dpmed.errors import InputError
from dpmed.files import utc_now
from dpmed.privacy.cohort.members import numbered, packed, renumbered, unpacked
from dpmed.privacy.cohort.records import EnteredRun, Entry, Names, Snapshot, Status
from dpmed.privacy.mechanism import SampledGaussian, is_countable

# Before, an image was named by its target, mask or further channels too, so one could count as several.
_FORMER_FORMAT, _FORMAT = "dpmed cohort 1", "dpmed cohort 2"
_HASH_BYTES, _KEY_BYTES = 16, 32
_WHAT = "cohort file"
_UNITS = "CREATE TABLE units (number INTEGER NOT NULL, hash BLOB NOT NULL UNIQUE)"
_TABLES = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    _UNITS,
    """
CREATE TABLE runs (
    number INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE, entered TEXT NOT NULL, folder TEXT NOT NULL,
    config_sha256 TEXT NOT NULL, data TEXT NOT NULL, noise_multiplier REAL NOT NULL, sampling_rate REAL NOT NULL,
    planned INTEGER NOT NULL, steps INTEGER NOT NULL, status TEXT NOT NULL, members BLOB NOT NULL
)""",
)
_SET_ASIDE = (
    "ALTER TABLE units RENAME TO former_units",
    _UNITS,
    "INSERT INTO facts SELECT 'last_for_all', COALESCE(MAX(number), 0) FROM runs",
    f"UPDATE facts SET value = '{_FORMAT}' WHERE name = 'format'",  # noqa: S608 our own constant
)
_COLUMNS = "number, token, entered, folder, data, noise_multiplier, sampling_rate, planned, steps, status, members"
_AGAIN = """
UPDATE runs SET token = ?, members = ?, noise_multiplier = MIN(noise_multiplier, ?),
sampling_rate = MAX(sampling_rate, ?), steps = MAX(planned, ?), planned = MAX(planned, ?), status = 'running'
WHERE number = ?
"""

# Called with the prospective content and the tokens of the runs to be entered; raises an `InputError` to refuse.
Check = Callable[[Snapshot, frozenset[str]], None]


class Cohort:
    """An open cohort file.

    Args:
        path: the file.
        create: unit and δ of a new file; None if the file must exist.

    Raises:
        InputError: the file is missing, is not a cohort file or is damaged.
        RunError: the disk is full, or another process holds the file for a minute.
    """

    def __init__(self, path: Path, *, create: tuple[str, float] | None = None) -> None:
        self.path = path
        is_new = _is_new(path)
        if create is None and is_new:
            raise InputError(
                "there is no such cohort file",
                where=str(path),
                remedy="A run whose config has privacy.cohort creates it before its first step.",
            )
        if create is not None and is_new:
            make_database(path, partial(_fill, *create), what=_WHAT)
        self._connection = open_database(path, what=_WHAT)
        self._facts = self._read_facts()

    def __enter__(self) -> "Cohort":
        """The open file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._connection.close()

    @property
    def unit(self) -> str:
        """What a unit is."""
        return self._facts["unit"]

    @property
    def delta(self) -> float:
        """δ at which ε is stated."""
        return float(self._facts["delta"])

    def hash_of(self, name: str) -> bytes:
        """The keyed hash under which a unit's name is stored."""
        return hmac.digest(bytes.fromhex(self._facts["key"]), name.encode("utf-8", "surrogatepass"), "sha256")[
            :_HASH_BYTES
        ]

    def snapshot(self) -> Snapshot:
        """All runs and units, read at one moment."""
        with self._transaction("DEFERRED"):
            return self._snapshot()

    def runs_of(self, names: Names) -> tuple[EnteredRun, ...] | None:
        """The runs that count for the unit with any of these names; None if none of them is known."""
        with self._transaction("DEFERRED"):
            known = self._known()
            places = [known[code] for code in self._hashes(names) if code in known]
            return tuple(run for run in self._snapshot().runs if run.members[places].any()) if places else None

    def with_units(self, units: Sequence[Names]) -> tuple[Snapshot, Bool[np.ndarray, " unit"]]:
        """What the file would hold if these took part, though in no run yet, and which of its units they are."""
        with self._transaction("DEFERRED"):
            known, found = self._known(), self._snapshot()
        members, numbers = numbered(known, map(self._hashes, units))
        runs = tuple(replace(run, members=renumbered(run.members, numbers) | run.for_all) for run in found.runs)
        return replace(found, units=len(members), runs=runs), members

    def set_limit(self, limit: float | None) -> None:
        """Set the most that any unit may spend; None removes the limit."""
        with self._transaction("IMMEDIATE"):
            self._connection.execute("DELETE FROM facts WHERE name = 'limit'")
            if limit is not None:
                self._connection.execute("INSERT INTO facts VALUES ('limit', ?)", (repr(limit),))

    def enter(self, entries: Sequence[Entry], check: Check | None = None) -> None:
        """Enter runs, all or none; a run that is already in the file, by a token, is reset to its planned steps.

        An entry that is finished stays that of the run that finished; a copy with its former token is entered anew.

        Args:
            entries: the runs.
            check: called within the transaction with the prospective content, before anything is written; raises to
                refuse.
        """
        with self._transaction("IMMEDIATE"):
            self._set_former_names_aside()
            for entry in entries:
                self._put(entry)
            if check is not None:
                check(self._snapshot(), frozenset(entry.token for entry in entries))

    def settle(self, token: str, *, steps: int, status: Status) -> None:
        """Record how a run has ended, and the steps that it has made; all planned ones stay counted.

        Args:
            token: the token under which it was entered.
            steps: steps made.
            status: how it has ended; `running` if it has not, and may continue.

        Raises:
            InputError: the file does not know the run.
        """
        with self._transaction("IMMEDIATE"):
            found = self._connection.execute("SELECT planned FROM runs WHERE token = ?", (token,)).fetchone()
            if found is None:
                remedy = "Was it replaced, or the run's folder copied and the copy resumed? Resume the run to enter it."
                raise InputError("does not know this run", where=str(self.path), remedy=remedy)
            made = found[0] if status == "running" else steps
            self._connection.execute("UPDATE runs SET steps = ?, status = ? WHERE token = ?", (made, status, token))

    def _put(self, entry: Entry) -> None:
        if not is_countable(entry.mechanism):
            raise InputError("σ, rate or number of steps is beyond what a cohort file counts", where="privacy.cohort")
        connection, one, members = self._connection, entry.mechanism, self._members(entry.units)
        plan = (one.noise_multiplier, one.sampling_rate, one.steps, one.steps)
        for token in (entry.token, *entry.former):
            known = connection.execute("SELECT number, members, status FROM runs WHERE token = ?", (token,)).fetchone()
            # A finished run makes no more draws. Whoever still has some to make is a copy of its folder from before.
            if known is not None and (entry.is_over or known[2] != "finished" or token == entry.token):
                # Whatever changed since it was entered, each unit counts with no less than either plan costs.
                bits = packed(members | unpacked(known[1], len(members)))
                connection.execute(_AGAIN, (entry.token, bits, *plan, known[0]))
                return
        bits = packed(members)
        values = (entry.token, utc_now(), entry.folder, entry.data, *plan, "running", bits, entry.config_sha256)
        names, marks = f"{_COLUMNS}, config_sha256".removeprefix("number, "), ", ".join("?" * len(values))
        connection.execute(f"INSERT INTO runs ({names}) VALUES ({marks})", values)  # noqa: S608 our own constants

    def _members(self, units: Sequence[Names]) -> Bool[np.ndarray, " unit"]:
        """For each unit in the file, whether it is one of these; new units and new names are appended.

        Units that turn out to be the same are one from now on, with all runs in which any of them took part.
        """
        known, connection = self._known(), self._connection
        before = len(known)
        members, numbers = numbered(known, map(self._hashes, units))
        new = [(number, code) for code, number in islice(known.items(), before, None)]
        connection.executemany("INSERT INTO units VALUES (?, ?)", new)
        if len(members) < len(numbers):
            for run in self._snapshot().runs:
                bits = packed(renumbered(run.members, numbers))
                connection.execute("UPDATE runs SET members = ? WHERE number = ?", (bits, run.number))
            connection.create_function("renumbered", 1, numbers.tolist().__getitem__)
            connection.execute("UPDATE units SET number = renumbered(number)")
        return members

    def _known(self) -> dict[bytes, int]:
        """The number of the unit that each hash means, from 0 without gaps."""
        known = {bytes(code): number for number, code in self._connection.execute("SELECT number, hash FROM units")}
        if (numbers := set(known.values())) != set(range(len(numbers))):
            raise InputError("is damaged (numbers of units)", where=str(self.path))
        return known

    def _hashes(self, names: Names) -> list[bytes]:
        return [self.hash_of(name) for name in names]

    @property
    def _last_for_all(self) -> int:
        """The last run whose units have names that cannot be compared with today's; 0 if there is none."""
        is_former = self._facts["format"] == _FORMER_FORMAT and self.unit == "image"
        return sys.maxsize if is_former else int(self._facts.get("last_for_all", 0))

    def _set_former_names_aside(self) -> None:
        """In a file with images as an earlier version named them, count all its runs for every image from now on."""
        if self._facts["format"] == _FORMER_FORMAT and self.unit == "image":
            for change in _SET_ASIDE:
                self._connection.execute(change)
            self._facts = self._read_facts()

    def _snapshot(self) -> Snapshot:
        (units,) = self._connection.execute("SELECT COUNT(DISTINCT number) FROM units").fetchone()
        rows = self._connection.execute(f"SELECT {_COLUMNS} FROM runs ORDER BY number")  # noqa: S608 our own names
        try:
            limit = float(self._facts["limit"]) if "limit" in self._facts else None
            runs = tuple(_run(row, units, for_all=row[0] <= self._last_for_all) for row in rows)
            return Snapshot(unit=self.unit, delta=self.delta, limit=limit, units=units, runs=runs)
        except (ValueError, TypeError) as error:
            raise InputError(f"is damaged ({error})", where=str(self.path)) from error

    def _read_facts(self) -> Mapping[str, str]:
        with explained(self.path, what=_WHAT):
            facts = dict(self._connection.execute("SELECT name, value FROM facts"))
        if facts.get("format") not in (_FORMER_FORMAT, _FORMAT) or not {"key", "unit", "delta"} <= set(facts):
            raise InputError("is not a cohort file of this version of dpmed", where=str(self.path))
        return facts

    @contextmanager
    def _transaction(self, kind: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[None]:
        with explained(self.path, what=_WHAT):
            self._connection.execute(f"BEGIN {kind}")
            try:
                self._facts = self._read_facts()
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _is_new(path: Path) -> bool:
    """Whether there is no such file yet.

    Raises:
        InputError: there can be none: it is a folder, or a link to a file that is gone.
        RunError: its name is too long, or its folder must not be read.
    """
    with explained(path, what=_WHAT):
        is_new = not path.exists()
        if path.is_dir():
            raise InputError("is a folder, not a cohort file", where=str(path), remedy="Name a file in it.")
        if is_new and path.is_symlink():
            remedy = "Mount the disk of that file, or repair the link."
            raise InputError("is a link to a file that does not exist", where=str(path), remedy=remedy)
    return is_new


def _run(row: Sequence[Any], units: int, *, for_all: bool) -> EnteredRun:
    number, token, entered, folder, data, noise, rate, planned, steps, status, members = row
    mechanism = SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=planned)
    if status not in ("running", "stopped", "finished") or not is_countable(mechanism) or not 0 <= steps <= planned:
        raise ValueError(f"run {number}")
    return EnteredRun(
        number=number,
        token=token,
        entered=entered,
        folder=folder,
        data=data,
        mechanism=mechanism,
        made=steps,
        status=status,
        members=np.ones(units, bool) if for_all else unpacked(members, units),
        for_all=for_all,
    )


def _fill(unit: str, delta: float, connection: sqlite3.Connection) -> None:
    for table in _TABLES:
        connection.execute(table)
    facts = {"format": _FORMAT, "key": os.urandom(_KEY_BYTES).hex(), "unit": unit, "delta": repr(delta)}
    connection.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
