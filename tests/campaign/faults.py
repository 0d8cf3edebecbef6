"""Calls to the file system of small commands, failed one by one (`docs/reliability.md`).

Calls of one kind on one kind of file are one class, such as the rename of a checkpoint; one of each class fails, by an
error that is the class's turn, and where room is asked for also with all that follow, as on a full disk. First the
wall clock jumps by a year, ahead or back, in the middle of each command, which must not matter to it.
"""

import errno
import hashlib
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.campaign import laws
from tests.campaign.scenarios import SCENARIOS, Scenario, reference, surroundings
from tests.campaign.shim import Effect, Ended, Fault, run

_ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT)
_MAKES = ("open-to-write", "mkdir", "link", "allocate")
_JUMPS = (Effect.CLOCK_AHEAD, Effect.CLOCK_BACK)
PRIVATE = ("train", "resume")


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


def kind_of(operation: str, path: str) -> str:
    """The class of a call."""
    return f"{operation} {re.sub(r'[0-9a-f]{8,}|[0-9]+', '#', re.sub(r'[.][a-z0-9_]{8}[.]tmp', '.tmp', path))}"


def cases(scenario: str) -> list[Case]:
    """Jumps of the clock; one call of each class, first one of each file, by turns its opening, writing, …."""
    by_file: dict[str, list[Case]] = {}
    for case in _all_cases(scenario):
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


def _all_cases(scenario: str) -> Iterator[Case]:
    seen: dict[str, int] = {}
    for number, (operation, path) in enumerate(reference(scenario).ended.calls, start=1):
        kind = kind_of(operation, path)
        if kind in seen:
            continue
        seen[kind] = number
        turn = len(seen)
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
        found = laws.of_message(ended)
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


def campaign(only: list[str], *, num: int, seconds: float, seed: int) -> dict[str, object]:
    """Fail calls until `num` cases or `seconds` are spent; scenarios take turns, so that each has its share."""
    del seed  # every class is tried
    names = only or list(SCENARIOS)
    begun = time.monotonic()
    queues: dict[str, list[Case] | None] = dict.fromkeys(names)
    total: dict[str, int] = {}
    states: set[str] = set()
    broken: list[dict[str, object]] = []
    count = dict.fromkeys(names, 0)
    codes: dict[str, int] = {}
    while (
        any(queue is None or queue for queue in queues.values())
        and sum(count.values()) < num
        and time.monotonic() - begun < seconds
    ):
        for name in names:
            queue = queues[name]
            if queue is None:
                queue = queues[name] = cases(name)
                total[name] = len(queue)
            if not queue or time.monotonic() - begun > seconds:
                continue
            case = queue.pop(0)
            found, ended = examine(case, states)
            count[name] += 1
            codes[str(ended.code)] = codes.get(str(ended.code), 0) + 1
            if found:
                broken.append({"case": case.title, "found": found, "stderr": ended.stderr[-600:]})
                print(
                    f"{case.title}\n    " + "\n    ".join(found) + f"\n    > {ended.stderr.strip()[-400:]}", flush=True
                )
            if sum(count.values()) >= num:
                break
    calls = {name: len(reference(name).ended.calls) for name in total}
    return {
        "calls": calls, "classes": total, "failed": count, "carried_on": len(states), "exit_codes": codes,
        "broken": broken,
    }  # fmt: skip
