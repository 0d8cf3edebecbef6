"""Hostile files for every reader: refused by an `InputError`, or read; never another error, a hang or a flood.

A reader works in a forked process that may have 2 GB more than it began with and 10 s for one file; what it was given
last is on the disk, so that a process that dies is no loss. Nothing may appear beside the file that is read.
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
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from dpmed.errors import InputError
from tests.campaign.readers import HEADERS, READERS, TABLES, Reader
from tests.campaign.scenarios import PLACE

_SECONDS, _MEMORY = 10, 2 << 30
_ROUND = 500
_SHARE = 10  # tables and headers, which hospitals bring along, have so many rounds for one of the others


class _HangError(BaseException):
    pass


def hostile(reader: Reader, valid: bytes, *, seed: int, number: int) -> bytes:
    """The file of this number: a function of reader, seed and number."""
    generator = random.Random(f"{reader.name}/{seed}/{number}")
    content = generator.choice(reader.ways)(generator, valid)
    return generator.choice(reader.ways)(generator, valid) if content == valid else content


def _ask(number: int, frame: object) -> None:
    raise _HangError


def _listing(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def _work(
    reader: Reader, folder: Path, valid: bytes, path: Path, numbers: range, seed: int, report: Connection
) -> None:
    """In the forked process: read one hostile file after the other."""
    os.chdir(folder)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _MEMORY,) * 2)
    signal.signal(signal.SIGALRM, _ask)
    warnings.simplefilter("ignore")  # of libraries; what they say of a file is theirs
    listing = _listing(folder.parent)
    for number in numbers:
        try:
            content = hostile(reader, valid, seed=seed, number=number)
        except (UnicodeError, ValueError, OverflowError, RecursionError):
            continue
        path.write_bytes(content)
        report.send(("begins", number, ""))
        kind, complaint = "read", ""
        signal.setitimer(signal.ITIMER_REAL, 4 * _SECONDS)
        begun = time.process_time()
        try:
            reader.read(path)
        except InputError as error:
            kind = "refused"
            if not str(error).replace("\n", "").isprintable():
                complaint = "an unprintable message"
            if len(str(error)) > 8000:
                complaint = f"a message of {len(str(error))} characters"
        except _HangError:
            complaint = "it hangs"
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/dpmed/" in frame.filename]
            complaint = f"{type(error).__name__}: {str(error)[:200]!r} at {Path(place.filename).name}:{place.lineno}"
            complaint += f", called from {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if time.process_time() - begun > _SECONDS:
            complaint = complaint or "it takes over 10 s"
        report.send((kind if not complaint else "broken", number, complaint))
    if _listing(folder.parent) != listing:
        report.send(("broken", numbers.stop - 1, "something was written"))
    report.send(("ends", 0, ""))


class Round:
    """Readers of one kind in their own folder."""

    def __init__(self, reader: Reader, place: Path) -> None:
        self.reader = reader
        self.folder = place / reader.name / "in"
        self.folder.mkdir(parents=True)
        self.path = reader.make(self.folder)
        self.valid = self.path.read_bytes()
        reader.read(self.path)
        self.next = 0
        self.read = self.refused = 0

    def run(self, count: int, seed: int, broken: Callable[[Reader, int, str], None]) -> None:
        """Read the next files; a process that dies costs the one file that it died of."""
        end = self.next + count
        while self.next < end:
            ours, theirs = get_context("fork").Pipe()
            words = (self.reader, self.folder, self.valid, self.path, range(self.next, end), seed, theirs)
            process = get_context("fork").Process(target=_work, args=words)
            process.start()
            theirs.close()
            last = self.next
            while True:
                try:
                    kind, number, complaint = ours.recv() if ours.poll(8 * _SECONDS) else ("stuck", last, "it hangs")
                except EOFError:
                    kind, number, complaint = "died", last, "the process died"
                last = number if kind != "ends" else last
                self.read += kind == "read"
                self.refused += kind == "refused"
                if complaint:
                    broken(self.reader, number, complaint)
                if kind in ("ends", "stuck", "died"):
                    break
            process.kill()
            process.join()
            self.next = end if kind == "ends" else last + 1


def campaign(only: list[str], *, num: int, seconds: float, seed: int) -> dict[str, object]:
    """Hostile files until `num` or `seconds` are spent: all readers in turn."""
    begun = time.monotonic()
    found: dict[str, dict[str, object]] = {}

    def broken(reader: Reader, number: int, complaint: str) -> None:
        # One example of each place in the code.
        key = hashlib.sha256(f"{reader.name} {complaint.rsplit(' at ', maxsplit=1)[-1]}".encode()).hexdigest()[:12]
        entry = found.setdefault(key, {"reader": reader.name, "number": number, "found": complaint, "times": 0})
        if entry["times"] == 0:
            print(f"{reader.name} {number}: {complaint}", flush=True)
        entry["times"] = int(str(entry["times"])) + 1

    with tempfile.TemporaryDirectory(prefix="dpmed-inputs-", dir=PLACE) as place:
        rounds = [Round(reader, Path(place)) for reader in READERS.values() if reader.name in (only or READERS)]
        turn = 0
        while (done := sum(one.next for one in rounds)) < num and time.monotonic() - begun < seconds:
            for one in rounds:
                if turn % _SHARE == 0 or one.reader.name in (*TABLES, *HEADERS) or only:
                    one.run(min(_ROUND, num), seed, broken)
                if time.monotonic() - begun >= seconds:
                    break
            turn += 1
        done = sum(one.next for one in rounds)
    kinds = {one.reader.name: {"files": one.next, "read": one.read, "refused": one.refused} for one in rounds}
    tables = sum(one.next for one in rounds if one.reader.name in (*TABLES, *HEADERS))
    return {"files": done, "tables_and_headers": tables, "readers": kinds, "broken": list(found.values())}
