"""The DP step beside the step without privacy, a plain Equinox one, and peers: all in turn, in one run.

Per variant: samples per second, seconds of the first call (which compiles) and, of dpmed's own, megabytes of a step.
`BENCH_STEP_CASES` names cases, joined by commas (`memory` and `devices` are two), `BENCH_ROUNDS` sets the rounds that
count. Peers run in interpreters of their own, named by `DPMED_TORCH_PYTHON` and `DPMED_JAX_PRIVACY_PYTHON`.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.benchmarks import step_peers
from tests.benchmarks.plain_equinox import PlainTraining
from tests.benchmarks.record import measurement
from tests.benchmarks.step_cases import CASES, Training, is_large, trainings, wanted

# Warm-up rounds and rounds that count. The allocator settles during the first ones.
_SMALL, _LARGE = (6, 8), (3, 3)
_MICROBATCHES = (1, 128)
_DEVICES = (1, 2, 8)
_SHARED_CASE = "resnet9-32x32x3-b32"
Calls = dict[str, Callable[[], float]]


def run() -> list[dict[str, Any]]:
    """Speed, first call, memory, and ratios of times."""
    names = wanted("memory", "devices")
    results = [found for case in CASES if case in names for found in _case(case)]
    for name, measure in (("memory", _memory_of_large_batches), ("devices", _work_of_devices)):
        if name in names:
            results += measure()
    return results


def _case(case: str) -> list[dict[str, Any]]:
    _, shape, batch = CASES[case]
    own = trainings(case)
    calls: Calls = {name: partial(_seconds, training) for name, training in own.items()}
    parameters = own["private"].parameters()
    if case in step_peers.RESNET9:
        plain = PlainTraining(shape, batch)
        assert plain.parameters() == parameters
        calls["plain equinox/optax"] = partial(_seconds, plain)
    first = {name: call() for name, call in calls.items()}
    peers = step_peers.start(case, parameters=parameters)
    try:
        seconds = _rounds(calls, {name: call for peer in peers for name, call in peer.calls().items()}, case)
    finally:
        for peer in peers:
            peer.close()
    first |= {name: value for peer in peers for name, value in peer.first.items()}
    return [*_speeds(case, batch, seconds, first), *_memory(case, own), *_ratios(case, seconds)]


def _rounds(own: Calls, peers: Calls, case: str) -> dict[str, list[float]]:
    """Seconds of every variant, in turn. Peers join in the last round of the warm-up.

    A turn is two steps, of which the second counts: training takes steps back to back, and the first one still meets
    the caches and waiting threads that the variant before has left.
    """
    warmup, rounds = _LARGE if is_large(case) else _SMALL
    rounds = int(os.environ.get("BENCH_ROUNDS", rounds))
    found: dict[str, list[float]] = {name: [] for name in (*own, *peers)}
    for turn in range(1 - warmup, rounds + 1):
        for name, call in (own | peers if turn >= 0 else own).items():
            if name not in found:
                continue
            try:
                call()
                value = call()
            except step_peers.PeerStoppedError as error:
                print(f"{error}; {name} is left out", flush=True)
                del found[name]
                continue
            if turn > 0:
                found[name].append(value)
    return found


def _seconds(step: Callable[[], None]) -> float:
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


def _speeds(case: str, batch: int, seconds: dict[str, list[float]], first: dict[str, float]) -> list[dict[str, Any]]:
    results = []
    for name, values in seconds.items():
        rates = [batch / value for value in values]
        results.append(measurement(case, name, "samples/s", rates, more_is_better=True))
        results.append(measurement(case, name, "s, first call", [first[name]], more_is_better=False))
    return results


def _memory(case: str, own: dict[str, Training]) -> list[dict[str, Any]]:
    return [measurement(case, name, "MB", [training.memory()], more_is_better=False) for name, training in own.items()]


def _ratios(case: str, seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Times of dpmed over times of others, round by round."""
    pairs = [("private", "nonprivate"), ("nonprivate", "plain equinox/optax"), ("nonprivate", "torch nonprivate")]
    modes = [name for name in seconds if name.startswith("opacus")]
    if modes:
        pairs.append(("private", min(modes, key=lambda name: statistics.median(seconds[name]))))
    pairs.append(("private", "jax_privacy clipped_grad"))
    return [
        measurement(
            case,
            f"{ours} / {theirs}",
            "time ratio",
            [a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True)],
            more_is_better=False,
        )
        for ours, theirs in pairs
        if theirs in seconds
    ]


def _memory_of_large_batches() -> list[dict[str, Any]]:
    """Peak memory of whole steps at a microbatch of 32, for expected batches of 32 and 4096."""
    results = []
    for count in _MICROBATCHES:
        call = [sys.executable, "-m", "tests.benchmarks.step_memory", str(count)]
        found = json.loads(subprocess.run(call, check=True, capture_output=True).stdout)
        for what, name in (("peak", "peak of the process"), ("analysis", "XLA's analysis")):
            variant = f"expected batch {32 * count}, {name}"
            results.append(measurement("small_cnn-microbatch-32", variant, "MB", [found[what]], more_is_better=False))
    return results


def _work_of_devices() -> list[dict[str, Any]]:
    """Processor seconds of the same step on simulated devices of one processor."""
    results = []
    for count in _DEVICES:
        call = [sys.executable, "-m", "tests.benchmarks.step_devices", _SHARED_CASE]
        environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
        found = json.loads(subprocess.run(call, check=True, capture_output=True, env=environment).stdout)
        for name, seconds in found.items():
            variant = f"{name}, {count} devices"
            results.append(measurement(_SHARED_CASE, variant, "processor s", [seconds], more_is_better=False))
    return results
