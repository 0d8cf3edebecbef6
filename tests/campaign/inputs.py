"""Hostile files for every reader: refused by an `InputError`, or read; never another error, a hang or a flood.

A reader works in a forked process that may have 2 GB more than it began with and 10 s for one file; the number of the
file stands in memory that its parent sees, so that a process that dies is no loss. Nothing may appear beside the file
that is read. Half of the files are made from the valid one, the others from hostile ones of the same round that were
read, or refused at a line of dpmed that had refused none: faults pile up behind what a single one does not pass.
"""

import hashlib
import os
import random
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, MutableSequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

from dpmed.errors import InputError
from tests.campaign import handed, mutate, readers
from tests.campaign.readers import Reader
from tests.campaign.scenarios import PLACE
from tests.campaign.shim import BUILD

_SECONDS, _MEMORY = 10, 2 << 30
_FIRST, _LEAST, _MOST = 100, 200, 2000  # files of a round
_ROUND_SECONDS = 1.0
_KEPT = 32  # of each kind in a pool
_NUMBER, _READ, _REFUSED, _BROKEN = range(4)
READERS = {**readers.READERS, **handed.READERS}


class _HangError(BaseException):
    pass


def hostile(reader: Reader, start: bytes, *, valid: bytes, seed: int, number: int) -> bytes:
    """The file of this number: a function of reader, what it is made from, seed and number."""
    generator = random.Random(f"{reader.name}/{seed}/{number}")
    for _ in range(2):
        way = generator.choice(reader.ways)
        try:
            content = way(generator, start)
        except Exception:
            # A way that takes files apart fails, in as many ways as there are formats, at one that is no such file any
            # more. At a valid one it must not.
            if start == valid:
                raise
            content = mutate.bytes_(generator, start)
        if content != start:
            break
    return content


@dataclass
class Pool:
    """Files to make further ones from.

    Attributes:
        valid: the first.
        read: hostile files that were read, the latest ones.
        refused: one for each place in dpmed that refused one, the latest ones.
    """

    valid: bytes
    read: list[bytes] = field(default_factory=list)
    refused: list[bytes] = field(default_factory=list)
    _places: set[str] = field(default_factory=set)

    def choose(self, generator: random.Random) -> bytes:
        """One to make the next from."""
        chance = generator.random()
        some = self.read if chance < 0.35 else self.refused if chance < 0.5 else []
        return generator.choice(some) if some else self.valid

    def was_read(self, content: bytes) -> None:
        """Keep a file that was read."""
        self._keep(self.read, content)

    def was_refused(self, content: bytes, error: InputError) -> None:
        """Keep a file that was refused, where none was before."""
        place = " ".join(f"{frame.filename}:{frame.lineno}" for frame in _ours(error.__traceback__))
        if place not in self._places:
            self._places.add(place)
            self._keep(self.refused, content)

    def _keep(self, some: list[bytes], content: bytes) -> None:
        # They must not grow from one to the next.
        if len(content) <= 2 * len(self.valid) + 1024:
            some.append(content)
            del some[:-_KEPT]


def _ours(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    frames = traceback.StackSummary.extract(traceback.walk_tb(trace), lookup_lines=False)
    return [frame for frame in frames if "/dpmed/" in frame.filename]


def _ask(number: int, frame: object) -> None:
    raise _HangError


def _listing(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def _work(
    reader: Reader,
    folder: Path,
    valid: bytes,
    path: Path,
    numbers: range,
    seed: int,
    told: MutableSequence[int],
    report: Connection,
) -> None:
    """In the forked process: read one hostile file after the other."""
    os.chdir(folder)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _MEMORY,) * 2)
    signal.signal(signal.SIGALRM, _ask)
    warnings.simplefilter("ignore")  # of libraries; what they say of a file is theirs
    pool, generator = Pool(valid), random.Random(f"{reader.name}/{seed}/{numbers.start}")
    for number in numbers:
        content = hostile(reader, pool.choose(generator), valid=valid, seed=seed, number=number)
        path.write_bytes(content)
        told[_NUMBER] = number
        complaint, refusal = _read(reader, path)
        told[_BROKEN if complaint else _READ if refusal is None else _REFUSED] += 1
        if complaint:
            report.send((number, complaint, content))
        elif refusal is None:
            pool.was_read(content)
        else:
            pool.was_refused(content, refusal)
    report.send(None)


def _read(reader: Reader, path: Path) -> tuple[str, InputError | None]:
    """What breaks a law in how one file is read, and the error that refuses it."""
    complaint, refusal = "", None
    signal.setitimer(signal.ITIMER_REAL, 4 * _SECONDS)
    begun = time.process_time()
    try:
        reader.read(path)
    except InputError as error:
        refusal = error
        if not str(error).replace("\n", "").isprintable():
            complaint = "an unprintable message"
        if len(str(error)) > 8000:
            complaint = f"a message of {len(str(error))} characters"
    except _HangError:
        complaint = "it hangs"
    except BaseException as error:
        place, ours = traceback.extract_tb(error.__traceback__)[-1], _ours(error.__traceback__)
        complaint = f"{type(error).__name__}: {str(error)[:200]!r} at {Path(place.filename).name}:{place.lineno}"
        complaint += f", called from {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if time.process_time() - begun > _SECONDS:
        complaint = complaint or "it takes over 10 s"
    return complaint, refusal


class Round:
    """Readers of one kind in their own folder."""

    def __init__(self, reader: Reader, place: Path) -> None:
        self.reader = reader
        self.folder = place / reader.name / "in"
        self.folder.mkdir(parents=True)
        self.path = reader.make(self.folder)
        self.valid = self.path.read_bytes()
        reader.read(self.path)
        self.listing = _listing(place / reader.name)
        self.next = 0
        self.told: MutableSequence[int] = get_context("fork").RawArray("q", 4)
        self.seconds = 0.0

    @property
    def size(self) -> int:
        """Of its next round: readers get the same time, of which a fast one makes more files."""
        if not self.seconds:
            return _FIRST
        return max(_LEAST, min(_MOST, round(_ROUND_SECONDS * self.next / self.seconds)))

    @property
    def files(self) -> int:
        """How many were read, refused, or broke a law."""
        return self.told[_READ] + self.told[_REFUSED] + self.told[_BROKEN]

    def run(self, count: int, seed: int, broken: Callable[[Reader, int, str, bytes], None]) -> None:
        """Read the next files; a process that dies costs the one file that it died of."""
        end = self.next + count
        used = _cpu_seconds()
        while self.next < end:
            ours, theirs = get_context("fork").Pipe()
            words = (self.reader, self.folder, self.valid, self.path, range(self.next, end), seed, self.told, theirs)
            process = get_context("fork").Process(target=_work, args=words)
            self.told[_NUMBER] = self.next
            process.start()
            theirs.close()
            self.next = end
            for number, complaint, content in self._reports(ours):
                broken(self.reader, number, complaint, content)
                if complaint in (_STUCK, _DIED):
                    self.told[_BROKEN] += 1
                    self.next = number + 1
            process.kill()
            process.join()
            ours.close()
            # By the parent, since one that writes may be one that dies.
            if (listing := _listing(self.folder.parent)) != self.listing:
                broken(self.reader, self.next - 1, "something was written", b"")
                self.listing = listing
        self.seconds += _cpu_seconds() - used

    def _reports(self, ours: Connection) -> Iterator[tuple[int, str, bytes]]:
        """What the process complains of, until it ends; its own end, if that is none of its doing."""
        last, since = -1, time.monotonic()
        while True:
            if ours.poll(1):
                try:
                    said = ours.recv()
                except EOFError:
                    said = (self.told[_NUMBER], _DIED, self.path.read_bytes())
                if said is None:
                    return
                yield said
                if said[1] == _DIED:
                    return
            if self.told[_NUMBER] != last:
                last, since = self.told[_NUMBER], time.monotonic()
            elif time.monotonic() - since > 8 * _SECONDS:
                yield last, _STUCK, self.path.read_bytes()
                return


_STUCK, _DIED = "it hangs for good", "the process died"


def _cpu_seconds() -> float:
    """Of processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def campaign(only: list[str], *, num: int, seconds: float, seed: int) -> dict[str, object]:
    """Hostile files until `num` or `seconds` are spent: all readers in turn, each for the same time."""
    begun = time.monotonic()
    found: dict[str, dict[str, object]] = {}

    def broken(reader: Reader, number: int, complaint: str, content: bytes) -> None:
        # One example of each place in the code.
        key = hashlib.sha256(f"{reader.name} {complaint.rsplit(' at ', maxsplit=1)[-1]}".encode()).hexdigest()[:12]
        entry = found.setdefault(key, {"reader": reader.name, "number": number, "found": complaint, "times": 0})
        if entry["times"] == 0:
            kept = BUILD / "hostile" / f"{reader.name}-{seed}-{number}"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(content)
            print(f"{reader.name} {number}: {complaint}; {kept}", flush=True)
        entry["times"] = int(str(entry["times"])) + 1

    with tempfile.TemporaryDirectory(prefix="dpmed-inputs-", dir=PLACE) as place:
        rounds = [Round(reader, Path(place)) for reader in READERS.values() if reader.name in (only or READERS)]
        while sum(one.next for one in rounds) < num and time.monotonic() - begun < seconds:
            for one in rounds:
                if time.monotonic() - begun < seconds:
                    one.run(min(one.size, -(-num // len(rounds))), seed, broken)
            print(f"{sum(one.files for one in rounds):,} files in {time.monotonic() - begun:.0f} s", flush=True)
    kinds = {
        one.reader.name: {"files": one.files, "read": one.told[_READ], "refused": one.told[_REFUSED],
                          "cpu_seconds": round(one.seconds, 1)}
        for one in rounds
    }  # fmt: skip
    return {"files": sum(one.files for one in rounds), "readers": kinds, "broken": list(found.values())}
