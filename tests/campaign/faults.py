"""Calls to the file system of small commands, failed one by one (`docs/reliability.md`).

Calls of one kind on one kind of file are one class, such as the rename of a checkpoint; one of each class fails, by an
error that is the class's turn, and where room is asked for also with all that follow, as on a full disk. First the
wall clock jumps by a year, ahead or back, in the middle of each command, which must not matter to it. All classes take
longer than a call may last, so that a call can leave out what earlier ones have tried.
"""

import errno
import hashlib
import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaign import laws
from tests.campaign.scenarios import SCENARIOS, Scenario, reference, surroundings
from tests.campaign.shim import BUILD, Effect, Ended, Fault, run

_ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT)
_MAKES = ("open-to-write", "mkdir", "link", "allocate")
_JUMPS = (Effect.CLOCK_AHEAD, Effect.CLOCK_BACK)
PRIVATE = ("train", "resume")
TRIED = "faults-tried.jsonl"
_DPMED = Path(__file__).resolve().parents[2] / "dpmed"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One fault in one scenario."""

    scenario: str
    fault: Fault
    operation: str
    path: str

    @property
    def title(self) -> str:
        """For people."""
        words = self.fault.effect.name.lower().replace("_", " ")
        error = "" if self.fault.effect in (Effect.SHORT, *_JUMPS) else f" {errno.errorcode[self.fault.error]}"
        return f"{self.scenario}: {self.operation} {self.path} (call {self.fault.number}): {words}{error}"

    @property
    def key(self) -> str:
        """Of the class."""
        jumps = self.fault.effect in _JUMPS
        name = self.fault.effect.name.lower() if jumps else kind_of(self.operation, self.path)
        return f"{self.scenario}: {name}"

    def met(self, ended: Ended) -> str:
        """The class that the fault met, which threads can make another one than was meant; empty if it met none."""
        if ended.hit is None or self.fault.effect in _JUMPS:
            return "" if ended.hit is None else self.key
        return f"{self.scenario}: {kind_of(*ended.hit)}"


def kind_of(operation: str, path: str) -> str:
    """The class of a call."""
    return f"{operation} {re.sub(r'[0-9a-f]{8,}|[0-9]+', '#', re.sub(r'[.][a-z0-9_]{8}[.]tmp', '.tmp', path))}"


def cases(scenario: str, seed: int = 0) -> list[Case]:
    """Jumps of the clock; one call of each class, first one of each file, by turns its opening, writing, ….

    Args:
        scenario: its name.
        seed: another one fails the same classes by other errors.
    """
    by_file: dict[str, list[Case]] = {}
    for case in _all_cases(scenario, seed):
        by_file.setdefault(kind_of("", _target(case.path)), []).append(case)
    ranked = []
    for turn, found in enumerate(by_file.values()):
        for place, case in enumerate(found):
            ranked.append(((place - turn) % len(found), len(ranked), case))
    return _jumps(scenario) + [case for _, _, case in sorted(ranked, key=lambda one: one[:2])]


def _jumps(scenario: str) -> list[Case]:
    calls = reference(scenario).ended.calls
    number = len(calls) // 2
    operation, path = calls[number - 1]
    return [Case(scenario=scenario, fault=Fault(number=number, effect=effect), operation=operation, path=path)
            for effect in _JUMPS]  # fmt: skip


def _target(path: str) -> str:
    """The file that a temporary one will become."""
    return re.sub(r"[.]([^/]*)[.][a-z0-9_]{8}[.]tmp$", r"\1", path)


def _all_cases(scenario: str, seed: int) -> Iterator[Case]:
    seen: dict[str, int] = {}
    for number, (operation, path) in enumerate(reference(scenario).ended.calls, start=1):
        kind = kind_of(operation, path)
        if kind in seen:
            continue
        seen[kind] = number
        turn = len(seen) + seed
        error = _ERRORS[turn % len(_ERRORS)]
        effects = [Effect.FAIL]
        if operation == "write":
            effects = [Effect.SHORT if turn % 2 else Effect.FAIL]
        if operation in _MAKES and turn % 2:
            effects = [Effect.FAIL_FROM_HERE]
        for effect in effects:
            # A folder without inodes says that there is no space; so does a full disk.
            error = errno.ENOSPC if effect is Effect.FAIL_FROM_HERE else error
            yield Case(scenario=scenario, fault=Fault(number=number, effect=effect, error=error), operation=operation,
                       path=path)  # fmt: skip


def examine(case: Case, states: set[str]) -> tuple[list[str], Ended]:
    """Run one case.

    Args:
        case: the case.
        states: of folders that were carried on from already; added to.

    Returns:
        What broke a law, and how the command ended.
    """
    scenario = SCENARIOS[case.scenario]
    with surroundings(scenario) as root:
        before = laws.contents(root)
        try:
            ended = run(list(scenario.words), root, case.fault)
        except subprocess.TimeoutExpired:
            return ["it hangs"], Ended(code=-1, stdout="", stderr="", calls=(), draws=0)
        found = laws.of_message(ended) + laws.of_calls(ended)
        left = [name for name in laws.of_files(root, before) if not _cannot_help(case, name)]
        found += left + accounts(root, scenario, ended.draws)
        if ended.code and case.fault.effect in _JUMPS:
            found.append(f"it depends on the clock: {ended.stderr.strip()[-300:]}")
        if ended.code == 0:
            if case.operation not in ("unlink", "fsync") and case.fault.effect is not Effect.SHORT:
                found += _tolerated(root, scenario, case)
            found += laws.of_result(root, scenario, reference(case.scenario).files)
        elif is_new(root, states, scenario):
            found += carry_on(root, scenario, ended)
    return found, ended


def _cannot_help(case: Case, complaint: str) -> bool:
    """A temporary file that cannot be unlinked stays."""
    return case.operation == "unlink" and complaint.endswith("is left over")


def _tolerated(root: Path, scenario: Scenario, case: Case) -> list[str]:
    lost = [name for name in reference(case.scenario).names if not (root / name).exists() and "checkpoints" not in name]
    return [f"it says that all is well, and {name} is missing" for name in sorted(lost)]


def accounts(root: Path, scenario: Scenario, draws: int, run_folder: str = "out") -> list[str]:
    found = laws.of_cohort(root, draws=draws) if scenario.name in PRIVATE else []
    return found + laws.of_ledger(root, run_folder, draws=draws, private=scenario.name in PRIVATE)


def is_new(root: Path, states: set[str], scenario: Scenario) -> bool:
    """Whether no folder with files of these names and sizes was carried on from before."""
    files = sorted((name, len(content)) for name, content in laws.contents(root).items())
    state = hashlib.sha256(repr((scenario.name, files)).encode()).hexdigest()
    if state in states:
        return False
    states.add(state)
    return True


def carry_on(root: Path, scenario: Scenario, ended: Ended) -> list[str]:
    """What a user does next, without a fault: it must go through, and end as if nothing had happened."""
    words = list(scenario.again or scenario.words)
    folder = "out"
    begun = (root / "out" / "config.toml").is_file() or "--resume" not in words
    if (not scenario.kept and "out" in words) or not begun:
        folder = "again"
        words = [*scenario.words[:-1], "again"]
    before = laws.contents(root)
    done = run(words, root)
    if done.code:
        return [f"carrying on by {' '.join(words)} ends with {done.code}: {done.stderr.strip()[-300:]}"]
    found = [f"carried on: {one}" for one in laws.of_message(done)]
    found += [f"carried on: {one}" for one in laws.of_files(root, before, killed=True)]
    draws = done.draws + (ended.draws if folder == "out" else 0)
    found += [f"carried on: {one}" for one in accounts(root, scenario, draws, folder)]
    files = reference(scenario.name).files
    return found + [f"carried on: {one}" for one in laws.of_result(root, scenario, files, run=folder)]


class Tried:
    """What came of each class, in this call and, on demand, in earlier ones.

    Args:
        path: lines of JSON, one for each case, which are read and added to; None to keep nothing.
        dpmed: what tells its code; results of other code do not count.
        seed: likewise.
        any_code: whether results of other code count all the same.

    Attributes:
        outcomes: the latest one of each class.
        states: of folders that were carried on from.
    """

    def __init__(self, path: Path | None, *, dpmed: str, seed: int, any_code: bool = False) -> None:
        self._path, self._own = path, {"dpmed": dpmed, "seed": seed}
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.states: set[str] = set()
        lines = path.read_text().splitlines() if path is not None and path.is_file() else []
        for one in map(json.loads, lines):
            if one["seed"] == seed and (any_code or one["dpmed"] == dpmed):
                self._take(one)

    def _take(self, one: dict[str, Any]) -> None:
        key = one["class"]
        # A complaint stands until its own class is tried again: a fault that met a class by chance does not refute it.
        if one["found"] or one["meant"] or key not in self.outcomes:
            self.outcomes[key] = one
        self.states.update(one["states"])

    def left(self, queue: Sequence[Case]) -> list[Case]:
        """The cases whose classes have not been tried, or broke a law."""
        return [case for case in queue if case.key not in self.outcomes or self.outcomes[case.key]["found"]]

    def examine(self, case: Case) -> dict[str, Any]:
        """Run a case and keep what came of it, as the outcome of the class that the fault met."""
        states = set(self.states)
        found, ended = examine(case, states)
        met = case.met(ended)
        one = {
            **self._own, "class": met or case.key, "meant": met in ("", case.key), "scenario": case.scenario,
            "case": case.title, "code": ended.code, "found": found, "stderr": ended.stderr[-600:] if found else "",
            # After a complaint the state must be carried on from once more.
            "states": [] if found else sorted(states - self.states),
        }  # fmt: skip
        if met or found:
            self._take(one)
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a") as file:
                    file.write(json.dumps(one) + "\n")
        return one


def code_of_dpmed() -> str:
    """Tells one state of dpmed's code from another."""
    digest = hashlib.sha256()
    for path in sorted(_DPMED.rglob("*.py")):
        digest.update(f"{path.relative_to(_DPMED)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def campaign(
    only: list[str], *, num: int, seconds: float, seed: int, untried: str = "", kept: Path = BUILD / TRIED
) -> dict[str, object]:
    """Fail calls until `num` cases or `seconds` are spent; scenarios take turns, so that each has its share.

    Args:
        only: names of scenarios; empty for all.
        num: cases at most.
        seconds: no case is begun after so long.
        seed: another one fails the same classes by other errors.
        untried: `same` leaves out the classes that earlier such calls tried with this code of dpmed and this seed, and
            that broke no law; `any` those tried with any code. Results are then of all these calls together.
        kept: where such calls keep their results.
    """
    names = only or list(SCENARIOS)
    begun = time.monotonic()
    tried = Tried(kept if untried else None, dpmed=code_of_dpmed(), seed=seed, any_code=untried == "any")
    queues: dict[str, list[Case] | None] = dict.fromkeys(names)
    total: dict[str, int] = {}
    calls = missed = 0

    def over() -> bool:
        return calls >= num or time.monotonic() - begun > seconds

    while any(queue is None or queue for queue in queues.values()) and not over():
        for name in names:
            queue = queues[name]
            if queue is None:
                found = cases(name, seed)
                total[name] = len(found)
                queue = queues[name] = tried.left(found)
            if not queue or over():
                continue
            one = tried.examine(queue.pop(0))
            calls += 1
            missed += not one["meant"]
            if one["found"]:
                print("\n    ".join([one["case"], *one["found"], f"> {one['stderr'].strip()[-400:]}"]), flush=True)
    outcomes = [one for one in tried.outcomes.values() if one["scenario"] in names]
    return {
        "calls": {name: len(reference(name).ended.calls) for name in total}, "classes": total,
        "in_this_call": calls, "met_another_class": missed,
        "failed": Counter(one["scenario"] for one in outcomes),
        "left": {name: len(tried.left(cases(name, seed))) for name in total},
        "carried_on": len(tried.states), "exit_codes": Counter(str(one["code"]) for one in outcomes),
        "broken": [one for one in outcomes if one["found"]],
    }  # fmt: skip
