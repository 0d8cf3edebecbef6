"""The cohort file: which units took part in which runs, to account for all runs on the same patients together.

An SQLite file that only its owner can read. It holds units as keyed hashes of their names; the key is created with the
file and never leaves it. A run is entered before its first step, and counts with all its planned steps, however many it
makes: when it stops may depend on the data, and ε at such a time would be no bound. Every change is one
transaction that is on the disk before the call returns, and two runs entering at the same time are admitted one after
the other.
"""

import hmac
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int, UInt64

from dpmed.errors import InputError, RunError
from dpmed.files import make_folder, remove_if_possible
from dpmed.privacy.mechanism import SampledGaussian, is_countable

Status = Literal["running", "stopped", "finished"]

_FORMAT = "dpmed cohort 1"
_HASH_BYTES, _KEY_BYTES = 16, 32
_OWNER_ONLY = 0o600
_SECONDS_TO_WAIT = 60.0
_GROUPS_AT_ONCE = 256
_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE units (number INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE);
CREATE TABLE runs (
    number INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE, entered TEXT NOT NULL, folder TEXT NOT NULL,
    config_sha256 TEXT NOT NULL, data TEXT NOT NULL, noise_multiplier REAL NOT NULL, sampling_rate REAL NOT NULL,
    planned INTEGER NOT NULL, steps INTEGER NOT NULL, status TEXT NOT NULL, members BLOB NOT NULL
);
"""
_COLUMNS = "number, token, entered, folder, data, noise_multiplier, sampling_rate, planned, steps, status, members"
_AGAIN = """
UPDATE runs SET token = ?, members = ?, noise_multiplier = MIN(noise_multiplier, ?),
sampling_rate = MAX(sampling_rate, ?), steps = MAX(planned, ?), planned = MAX(planned, ?), status = 'running'
WHERE number = ?
"""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A run about to be entered.

    Attributes:
        token: a random token by which the run recognises its entry.
        folder: the run folder, for human readers.
        config_sha256: digest of its config.
        data: the data set in public terms.
        mechanism: σ, q and all planned steps.
        units: names of the units that it trains on; only their keyed hashes are kept.
        former: tokens under which the run may be in the file already; `token` then takes their place.
    """

    token: str
    folder: str
    config_sha256: str
    data: str
    mechanism: SampledGaussian
    units: Sequence[str] = field(repr=False)
    former: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class EnteredRun:
    """A run recorded in the file.

    Attributes:
        number: its number, from 1, in the order of entry.
        token: the token of its entry.
        entered: time of entry, UTC.
        folder: the run folder.
        data: the data set in public terms.
        mechanism: σ, q and all planned steps.
        made: steps made, as stated at its end; before, all planned ones.
        status: `running` (or interrupted), `stopped` or `finished`.
        members: for each unit in the file, whether the run trains on it.
    """

    number: int
    token: str
    entered: str
    folder: str
    data: str
    mechanism: SampledGaussian
    made: int
    status: Status
    members: Bool[np.ndarray, " unit"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """Everything in the file at one moment.

    Attributes:
        unit: what a unit is: image, patient, …
        delta: δ at which ε is stated.
        limit: the most that any unit may spend; None for no limit.
        units: number of units that ever took part.
        runs: the runs, in the order of entry.
    """

    unit: str
    delta: float
    limit: float | None
    units: int
    runs: tuple[EnteredRun, ...]


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
        if create is None and not path.is_file():
            raise InputError(
                "there is no such cohort file",
                where=str(path),
                remedy="A run whose config has privacy.cohort creates it before its first step.",
            )
        with _explained(path):
            if create is not None and not path.exists():
                _make(path, *create)
            self._connection = _open(path)
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

    def runs_of(self, name: str) -> tuple[EnteredRun, ...] | None:
        """The runs that train on the unit of this name; None if it never took part."""
        with self._transaction("DEFERRED"):
            found = self._connection.execute("SELECT number FROM units WHERE hash = ?", (self.hash_of(name),))
            row = found.fetchone()
            if row is None:
                return None
            return tuple(run for run in self._snapshot().runs if run.members[row[0]])

    def places_of(self, names: Sequence[str]) -> list[int | None]:
        """The numbers of units by name; None for those that never took part."""
        with self._transaction("DEFERRED"):
            known = {bytes(code): number for number, code in self._connection.execute("SELECT number, hash FROM units")}
        return [known.get(self.hash_of(name)) for name in names]

    def set_limit(self, limit: float | None) -> None:
        """Set the most that any unit may spend; None removes the limit."""
        with self._transaction("IMMEDIATE"):
            self._connection.execute("DELETE FROM facts WHERE name = 'limit'")
            if limit is not None:
                self._connection.execute("INSERT INTO facts VALUES ('limit', ?)", (repr(limit),))
        self._facts = self._read_facts()

    def enter(self, entries: Sequence[Entry], check: Check | None = None) -> None:
        """Enter runs, all or none; a run that is already in the file, by a token, is reset to its planned steps.

        Args:
            entries: the runs.
            check: called within the transaction with the prospective content, before anything is written; raises to
                refuse.
        """
        with self._transaction("IMMEDIATE"):
            self._facts = self._read_facts()
            for entry in entries:
                self._put(entry)
            if check is not None:
                check(self._snapshot(), frozenset(entry.token for entry in entries))

    def settle(self, token: str, *, steps: int, status: Status) -> None:
        """Record how a run has ended, and the steps that it has made; all planned ones stay counted."""
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
            known = connection.execute("SELECT number, members FROM runs WHERE token = ?", (token,)).fetchone()
            if known is not None:
                # Whatever changed since it was entered, each unit counts with no less than either plan costs.
                both = members | _unpacked(known[1], len(members))
                connection.execute(_AGAIN, (entry.token, np.packbits(both).tobytes(), *plan, known[0]))
                return
        now, bits = datetime.now(UTC).isoformat(timespec="seconds"), np.packbits(members).tobytes()
        values = (entry.token, now, entry.folder, entry.data, *plan, "running", bits, entry.config_sha256)
        names, marks = f"{_COLUMNS}, config_sha256".removeprefix("number, "), ", ".join("?" * len(values))
        connection.execute(f"INSERT INTO runs ({names}) VALUES ({marks})", values)  # noqa: S608 our own constants

    def _members(self, names: Sequence[str]) -> Bool[np.ndarray, " unit"]:
        """For each unit in the file, whether it is one of these; new units are appended."""
        known = {bytes(code): number for number, code in self._connection.execute("SELECT number, hash FROM units")}
        hashes = [self.hash_of(name) for name in names]
        new = [code for code in dict.fromkeys(hashes) if code not in known]
        known.update({code: len(known) + place for place, code in enumerate(new)})
        self._connection.executemany("INSERT INTO units VALUES (?, ?)", [(known[code], code) for code in new])
        members = np.zeros(len(known), bool)
        members[[known[code] for code in hashes]] = True
        return members

    def _snapshot(self) -> Snapshot:
        (units,) = self._connection.execute("SELECT COUNT(*) FROM units").fetchone()
        rows = self._connection.execute(f"SELECT {_COLUMNS} FROM runs ORDER BY number")  # noqa: S608 our own names
        limit = self._facts.get("limit")
        try:
            runs = tuple(_run(row, units) for row in rows)
            return Snapshot(
                unit=self.unit,
                delta=float(self._facts["delta"]),
                limit=None if limit is None else float(limit),
                units=units,
                runs=runs,
            )
        except (ValueError, TypeError) as error:
            raise InputError(f"is damaged ({error})", where=str(self.path)) from error

    def _read_facts(self) -> Mapping[str, str]:
        with _explained(self.path):
            facts = dict(self._connection.execute("SELECT name, value FROM facts"))
        if facts.get("format") != _FORMAT or not {"key", "unit", "delta"} <= set(facts):
            raise InputError("is not a cohort file of this version of dpmed", where=str(self.path))
        return facts

    @contextmanager
    def _transaction(self, kind: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[None]:
        with _explained(self.path):
            self._connection.execute(f"BEGIN {kind}")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def equal_histories(snapshot: Snapshot) -> Iterator[tuple[Int[np.ndarray, " run"], int]]:
    """Groups of units that took part in exactly the same runs.

    Yields:
        For each group, the positions of its runs in `snapshot.runs` and its number of units. A million units in a
        thousand runs take seconds: each unit gets a signature of 128 random bits per run, combined by exclusive or.
    """
    signatures: UInt64[np.ndarray, "unit 2"] = np.zeros((snapshot.units, 2), np.uint64)
    generator = np.random.default_rng(int.from_bytes(os.urandom(16), "big"))
    # Eight runs at a time: a byte says in which of them a unit took part, and its signature is looked up.
    for first_run in range(0, len(snapshot.runs), 8):
        some = snapshot.runs[first_run : first_run + 8]
        byte = np.packbits(np.stack([run.members for run in some]), axis=0, bitorder="little")[0]
        bits = generator.integers(0, 2**64, size=(len(some), 2), dtype=np.uint64)
        signature_of = np.zeros((1, 2), np.uint64)
        for bit in bits:
            signature_of = np.concatenate([signature_of, signature_of ^ bit])
        signatures ^= signature_of[byte]
    # By size, and within a size in the order of the file, so that equal ones are adjacent.
    order = np.lexsort((signatures[:, 1], signatures[:, 0]))
    signatures = signatures[order]
    begins = np.flatnonzero(np.any(signatures[1:] != signatures[:-1], axis=1)) + 1
    starts = np.concatenate([[0], begins]) if len(order) else np.zeros(0, np.int64)
    first, counts = order[starts], np.diff(np.append(starts, len(order)))
    # Some at a time: all of them together are units times runs, which in a large cohort is more than memory holds.
    for start in range(0, len(first), _GROUPS_AT_ONCE):
        some = first[start : start + _GROUPS_AT_ONCE]
        table = [run.members[some] for run in snapshot.runs] or [np.zeros((0, len(some)), bool)]
        for row, count in zip(np.vstack(table).T, counts[start:].tolist(), strict=False):
            yield np.flatnonzero(row), count


def _run(row: Sequence[Any], units: int) -> EnteredRun:
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
        members=_unpacked(members, units),
    )


def _unpacked(members: bytes, units: int) -> Bool[np.ndarray, " unit"]:
    bits = np.unpackbits(np.frombuffer(members, np.uint8)).astype(bool)[:units]
    return np.pad(bits, (0, units - len(bits)))


def _make(path: Path, unit: str, delta: float) -> None:
    """Make the file whole or not at all: beside its place, then by a link, which fails if another was faster."""
    make_folder(path.parent)
    beside = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_RDWR, _OWNER_ONLY))
    try:
        connection = sqlite3.connect(beside, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript("BEGIN;" + _TABLES + "COMMIT;")
        facts = {"format": _FORMAT, "key": os.urandom(_KEY_BYTES).hex(), "unit": unit, "delta": repr(delta)}
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
        connection.execute("COMMIT")
        connection.close()
        try:
            os.link(beside, path)
        except FileExistsError:
            return
    finally:
        remove_if_possible(beside)


def _open(path: Path) -> sqlite3.Connection:
    # The rollback journal, not the write-ahead log, because its locks also work on shared file systems.
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_SECONDS_TO_WAIT)
    connection.isolation_level = None
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """SQLite's errors as messages for the user."""
    try:
        yield
    except sqlite3.OperationalError as error:
        # What SQLite says of a file without our tables, and of a header that it does not know.
        if any(words in str(error) for words in ("no such", "unsupported file format")):
            raise InputError("is not a cohort file", where=str(path)) from error
        if "Could not decode" in str(error):
            raise _damaged(path, error) from error
        raise RunError(f"cannot be used now ({error})", where=str(path)) from error
    # SQLite quotes a damaged schema in its message, which Python then cannot decode.
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise RunError(f"cannot be written ({error.strerror})", where=str(path)) from error


def _damaged(path: Path, error: Exception) -> InputError:
    problem = f"is not a cohort file, or is damaged ({error})"
    return InputError(problem, where=str(path), remedy="Restore a copy, or choose another.")
