"""Commands killed anywhere: before each call to the file system, and at random moments by real signals.

What SIGKILL leaves is what is on the disk at that moment. So one run, copied before each of its calls, gives every
state that a kill can leave; all are examined, and those with other files or sizes than another are carried on from.
Signals are sent besides: SIGKILL, SIGTERM, and SIGSTOP with SIGCONT behind it.
"""

import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.campaign import laws
from tests.campaign.faults import accounts, carry_on, is_new
from tests.campaign.scenarios import PLACE, SCENARIOS, Scenario, reference, surroundings
from tests.campaign.shim import SNAPSHOTS, Effect, Ended, Fault, run, start, watched

_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)
_STOPPED_SECONDS = 0.3


@dataclass(frozen=True, kw_only=True)
class State:
    """What a kill before one call leaves.

    Attributes:
        number: of the call.
        root: a copy of the folder; it may be changed.
        draws: made by then.
    """

    number: int
    root: Path
    draws: int


def states(scenario: Scenario, place: Path) -> Iterator[State]:
    """All states that a kill can leave, in order."""
    with surroundings(scenario) as root:
        ended = run(list(scenario.words), root, Fault(effect=Effect.SNAPSHOT), log=place / "log")
    if ended.code:
        raise SystemExit(f"{scenario.name}: {ended.stderr}")
    for folder in sorted((place / SNAPSHOTS).iterdir()):
        yield State(number=int(folder.name), root=folder / "case", draws=(folder / "draws").stat().st_size)


def examine(scenario: Scenario, state: State, before: dict[str, bytes]) -> list[str]:
    """What breaks a law in what a kill left."""
    found = laws.of_files(state.root, before, killed=True)
    return found + accounts(state.root, scenario, state.draws)


def send(scenario: Scenario, generator: random.Random, seconds: float, seen: set[str]) -> list[str]:
    """A real signal at a random moment, and how one carries on.

    Args:
        scenario: whose command is hit.
        generator: of the moment and the signal.
        seconds: that the command takes.
        seen: states that were carried on from; added to.
    """
    number = generator.choice(_SIGNALS)
    with surroundings(scenario) as root, tempfile.TemporaryDirectory(dir=PLACE) as folder:
        before, log = laws.contents(root), Path(folder, "log")
        process = start(list(scenario.words), root, log)
        time.sleep(generator.uniform(0, seconds))
        # It may end in between, and then there is nobody to hit.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
            if number == signal.SIGSTOP:
                time.sleep(_STOPPED_SECONDS)
                os.kill(process.pid, signal.SIGCONT)
        done = process.finish(300)
        ended = Ended(code=done.returncode, stdout=done.stdout, stderr=done.stderr, calls=(), draws=watched(log)[1])
        found = laws.of_files(root, before, killed=True) + accounts(root, scenario, ended.draws)
        if number == signal.SIGSTOP and ended.code:
            found.append(f"stopped for a while, it ends with {ended.code}: {ended.stderr[-200:]}")
        if ended.code > 0:
            found += laws.of_message(ended)
        if ended.code == 0:
            found += laws.of_result(root, scenario, reference(scenario.name).files)
        elif is_new(root, seen, scenario):
            found += carry_on(root, scenario, ended)
    return [f"{signal.Signals(number).name}: {one}" for one in found]


def campaign(only: list[str], *, num: int, seconds: float, seed: int) -> dict[str, object]:
    """Examine every state of each command, then carry on from distinct ones and send signals, by turns."""
    begun, generator = time.monotonic(), random.Random(seed)
    names = only or list(SCENARIOS)
    found: dict[str, int] = {}
    broken: list[dict[str, object]] = []
    carried, signals, queues, lasts = dict.fromkeys(names, 0), 0, {}, {}
    seen: set[str] = set()

    def tell(title: str, complaints: list[str]) -> None:
        if complaints:
            broken.append({"case": title, "found": complaints})
            print(title, *complaints, sep="\n    ", flush=True)

    with tempfile.TemporaryDirectory(prefix="dpmed-kills-", dir=PLACE) as parent:
        for name in names:
            if time.monotonic() - begun > seconds / 2:
                break
            scenario, place = SCENARIOS[name], Path(parent, name)
            place.mkdir()
            with surroundings(scenario) as root:
                before = laws.contents(root)
            started, queue = time.monotonic(), []
            for state in states(scenario, place):
                found[name] = found.get(name, 0) + 1
                if is_new(state.root, seen, scenario):
                    queue.append(state)
                    copy = state.root.with_name("examined")
                    shutil.copytree(state.root, copy)
                else:
                    copy = state.root
                looked_at = State(number=state.number, root=copy, draws=state.draws)
                tell(f"{name}: killed before call {state.number}", examine(scenario, looked_at, before))
            lasts[name] = time.monotonic() - started
            generator.shuffle(queue)
            queues[name] = queue
            print(f"{name}: {found[name]} states, {len(queue)} of them distinct", flush=True)
        distinct = {name: len(queue) for name, queue in queues.items()}
        while any(queues.values()) and time.monotonic() - begun < seconds and sum(carried.values()) + signals < num:
            for name, queue in queues.items():
                if queue and time.monotonic() - begun < seconds:
                    state = queue.pop()
                    ended = Ended(code=-signal.SIGKILL, stdout="", stderr="", calls=(), draws=state.draws)
                    title = f"{name}: killed before call {state.number}"
                    tell(title, carry_on(state.root, SCENARIOS[name], ended))
                    carried[name] += 1
                    tell(name, send(SCENARIOS[name], generator, lasts[name] / 2, seen))
                    signals += 1
    return {"states": found, "distinct": distinct, "carried_on": carried, "signals": signals, "broken": broken}
