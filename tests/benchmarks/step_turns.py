"""Steps of several variants in turn, and what is told of their times."""

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.benchmarks import step_peers
from tests.benchmarks.plain_equinox import PlainTraining
from tests.benchmarks.record import measurement
from tests.benchmarks.step_cases import Training, case_of, network_of

Calls = dict[str, Callable[[], float]]
_ENOUGH = 3


def timed(step: Callable[[], None]) -> Callable[[], float]:
    """A function that runs a step and returns its seconds."""

    def seconds() -> float:
        begun = time.perf_counter()
        step()
        return time.perf_counter() - begun

    return seconds


def with_plain_equinox(case: str, calls: Calls, *, parameters: int) -> Calls:
    """`calls`, and the plain Equinox network's if it is the case's."""
    if network_of(case) != "resnet9":
        return calls
    _, shape, batch = case_of(case)
    plain = PlainTraining(shape, batch)
    assert plain.parameters() == parameters
    return calls | {"plain equinox/optax": timed(plain)}


def beside_peers(
    case: str, own: Calls, take: Callable[..., dict[str, list[float]]], *, parameters: int, note: step_peers.Note
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """What `take(own, peers)` finds with the peers of the case, and the seconds of the peers' first steps."""
    peers = step_peers.start(case, parameters=parameters, note=note)
    try:
        seconds = take(own, {name: call for peer in peers for name, call in peer.calls().items()}, note=note)
    finally:
        for peer in peers:
            peer.close()
    return seconds, {name: value for peer in peers for name, value in peer.first.items()}


def in_turn(warmup: int, rounds: int, *, most_seconds: float = math.inf) -> Callable[..., dict[str, list[float]]]:
    """A function that takes `own` and `peers` in turn and returns the seconds of every variant.

    Peers join in the last round of the warm-up. A turn is two steps, of which the second counts: training takes steps
    back to back, and the first one still meets the caches and waiting threads that the variant before has left.
    No round begins after `most_seconds`, once a few have been taken.
    """
    return partial(_in_turn, warmup, rounds, most_seconds)


def _in_turn(
    warmup: int, rounds: int, most_seconds: float, own: Calls, peers: Calls, note: step_peers.Note = step_peers.say
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in (*own, *peers)}
    begun = time.perf_counter()
    for turn in range(1 - warmup, rounds + 1):
        if turn > _ENOUGH and time.perf_counter() - begun > most_seconds:
            break
        for name, call in (own | peers if turn >= 0 else own).items():
            if name not in found:
                continue
            try:
                call()
                value = call()
            except step_peers.PeerStoppedError as error:
                note(f"{error}; {name} is left out")
                del found[name]
                continue
            if turn > 0:
                found[name].append(value)
    return found


def speeds(case: str, seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Samples per second of every variant."""
    batch = case_of(case).batch
    return [
        measurement(case, name, "samples/s", [batch / value for value in values], more_is_better=True)
        for name, values in seconds.items()
    ]


def first_calls(case: str, first: dict[str, float]) -> list[dict[str, Any]]:
    """Seconds of every variant's first step, which compiles."""
    return [measurement(case, name, "s, first call", [value], more_is_better=False) for name, value in first.items()]


def memory(case: str, own: dict[str, Training]) -> list[dict[str, Any]]:
    """Megabytes of dpmed's own, by XLA's analysis."""
    return [measurement(case, name, "MB", [training.memory()], more_is_better=False) for name, training in own.items()]


def ratios(case: str, seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Times of dpmed over times of others, round by round."""
    pairs = [("private", "nonprivate"), ("nonprivate", "plain equinox/optax"), ("nonprivate", "torch nonprivate")]
    modes = [name for name in seconds if name.startswith("opacus")]
    if modes:
        pairs.append(("private", min(modes, key=lambda name: statistics.median(seconds[name]))))
    pairs.append(("private", "jax_privacy clipped_grad"))
    return [ratio(case, seconds, *pair) for pair in pairs if all(name in seconds for name in pair)]


def ratio(case: str, seconds: dict[str, list[float]], ours: str, theirs: str) -> dict[str, Any]:
    """The time of one over that of another, round by round."""
    values = [a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True)]
    return measurement(case, f"{ours} / {theirs}", "time ratio", values, more_is_better=False)
