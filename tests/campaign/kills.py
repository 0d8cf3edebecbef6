"""Commands killed anywhere: before each call to the file system, and at random moments by real signals.

What SIGKILL leaves is what is on the disk at that moment. So one run, copied before each of its calls, gives every
state that a kill can leave; all are examined, and those with other files or sizes than another are carried on from.
Signals are sent besides: SIGKILL, SIGTERM, and SIGSTOP with SIGCONT behind it. So they are to either of two processes
that train one model together (`peers`), of which the other one must not wait for ever.
"""

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.campaign import laws
from tests.campaign.faults import accounts, carry_on, is_new
from tests.campaign.scenarios import PLACE, SCENARIOS, Scenario, reference, surroundings
from tests.campaign.shim import SNAPSHOTS, Effect, Ended, Fault, run, start, watched

_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)
_STOPPED_SECONDS = 0.3
PEERS = "peers"
# JAX misses a silent process after 100 s, and then tells the others.
_GIVEN_UP_SECONDS = 240
_WITNESS_SECONDS = 1.0  # in which the process that speaks for a killed one does so
_NO_CODE = -99


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


def peers(victim: int, number: signal.Signals, *, after: int, continued: bool) -> list[str]:
    """A signal to one of two processes that train together.

    Args:
        victim: which one.
        number: of the signal.
        after: so many draws.
        continued: whether a stopped one goes on soon, so that nothing is to be noticed.
    """
    scenario = SCENARIOS["train"]
    with surroundings(scenario) as root, tempfile.TemporaryDirectory(dir=PLACE) as folder:
        before, logs = laws.contents(root), [Path(folder, "log0"), Path(folder, "log1")]
        place = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{_free_port()}", "JAX_NUM_PROCESSES": "2"}
        both = [start(list(scenario.words), root, log, more={**place, "JAX_PROCESS_ID": str(index)})
                for index, log in enumerate(logs)]  # fmt: skip
        while watched(logs[0])[1] < after and both[0].poll() is None:
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.kill(both[victim].pid, number)
        if continued:
            time.sleep(_STOPPED_SECONDS)
            os.kill(both[victim].pid, signal.SIGCONT)
        found, codes, words = [], [_NO_CODE, _NO_CODE], ["", ""]
        # The other one first: a stopped process ends once it may go on.
        for index in (1 - victim, victim):
            if index == victim and number == signal.SIGSTOP:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(both[victim].pid, signal.SIGCONT)
            latest = time.monotonic() + _GIVEN_UP_SECONDS
            while both[index].poll() is None and time.monotonic() < latest:
                time.sleep(0.1)
            time.sleep(_WITNESS_SECONDS)
            try:
                done = both[index].finish(0)
            except subprocess.TimeoutExpired:
                found.append(f"process {index} waits for ever")
                continue
            codes[index], words[index] = done.returncode, done.stderr
        draws = max(watched(log)[1] for log in logs)
        found += laws.of_files(root, before, killed=True) + accounts(root, scenario, draws)
        ended = Ended(code=codes[0], stdout="", stderr=words[0], calls=(), draws=draws)
        if continued:
            found += [
                f"process {index} ends with {code}: {words[index][-300:]}" for index, code in enumerate(codes) if code
            ]
            return found + laws.of_result(root, scenario, {})
        other = words[1 - victim]
        if codes[1 - victim] == 0:
            found.append("one ends well without the other")
        if (
            not any(said in other for said in ("another process of this run", "nothing is lost"))
            or "unexpected " in other
        ):
            found.append(f"it does not say why it ends with {codes[1 - victim]}: {other[-6000:]}")
        return found + carry_on(root, scenario, ended)


def _free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return int(some.getsockname()[1])


def _all_peers(generator: random.Random) -> Iterator[tuple[str, list[str]]]:
    """Every signal to either process, each at another step."""
    last = reference("train").ended.draws - 1
    for number, continued in ((signal.SIGKILL, False), (signal.SIGTERM, False), (signal.SIGSTOP, True),
                              (signal.SIGSTOP, False)):  # fmt: skip
        for victim in (0, 1):
            after = generator.randint(1, last)
            title = (
                f"{PEERS}: {number.name}{' and SIGCONT' if continued else ''} to process {victim} after {after} draws"
            )
            yield title, peers(victim, number, after=after, continued=continued)


def campaign(only: list[str], *, num: int, seconds: float, seed: int) -> dict[str, object]:
    """Examine every state of each command, then carry on from distinct ones and send signals, by turns."""
    begun, generator = time.monotonic(), random.Random(seed)
    broken: list[dict[str, object]] = []

    def tell(title: str, complaints: list[str]) -> None:
        if complaints:
            broken.append({"case": title, "found": complaints})
            print(title, *complaints, sep="\n    ", flush=True)

    told: dict[str, object] = {}
    names = [name for name in only or SCENARIOS if name in SCENARIOS]
    if names:
        told |= _one_by_one(names, generator, tell, num=num, until=begun + seconds)
    if not only or PEERS in only:
        told[PEERS] = 0
        for title, complaints in itertools.islice(_all_peers(generator), num):
            print(f"{title}: {len(complaints)} complaints", flush=True)
            tell(title, complaints)
            told[PEERS] = int(str(told[PEERS])) + 1
            if time.monotonic() - begun > seconds:
                break
    return {**told, "broken": broken}


def _one_by_one(
    names: list[str], generator: random.Random, tell: Callable[[str, list[str]], None], *, num: int, until: float
) -> dict[str, object]:
    begun = time.monotonic()
    found: dict[str, int] = {}
    carried, signals, queues, lasts = dict.fromkeys(names, 0), 0, {}, {}
    seen: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="dpmed-kills-", dir=PLACE) as parent:
        for name in names:
            if time.monotonic() > (begun + until) / 2:
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
        while any(queues.values()) and time.monotonic() < until and sum(carried.values()) + signals < num:
            for name, queue in queues.items():
                if queue and time.monotonic() < until:
                    state = queue.pop()
                    ended = Ended(code=-signal.SIGKILL, stdout="", stderr="", calls=(), draws=state.draws)
                    title = f"{name}: killed before call {state.number}"
                    tell(title, carry_on(state.root, SCENARIOS[name], ended))
                    carried[name] += 1
                    tell(name, send(SCENARIOS[name], generator, lasts[name] / 2, seen))
                    signals += 1
    return {"states": found, "distinct": distinct, "carried_on": carried, "signals": signals}
