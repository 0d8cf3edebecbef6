"""The DP step beside the step without privacy, a plain Equinox one, and peers: all in turn, in one run.

Per variant: samples per second, seconds of the first call (which compiles) and, of dpmed's own, megabytes of a step.
`BENCH_STEP_CASES` names cases, joined by commas (`memory` and `devices` are two), `BENCH_ROUNDS` sets the rounds that
count. Peers run in interpreters of their own, named by `DPMED_TORCH_PYTHON` and `DPMED_JAX_PRIVACY_PYTHON`.
"""

import itertools
import json
import os
import subprocess
import sys
from typing import Any

from tests.benchmarks.record import measurement
from tests.benchmarks.step_cases import CASES, is_large, trainings, wanted
from tests.benchmarks.step_peers import say
from tests.benchmarks.step_turns import (
    beside_peers,
    first_calls,
    in_turn,
    memory,
    ratios,
    speeds,
    timed,
    with_plain_equinox,
)

# Warm-up rounds and rounds that count. The allocator settles during the first ones.
_SMALL, _LARGE = (6, 8), (3, 3)
_MICROBATCHES = (1, 128)
_DEVICES = (1, 2, 8)
_SHARED_CASES = ("resnet9-32x32x3-b32", "resnet9-32x32x3-b256")


def run() -> list[dict[str, Any]]:
    """Speed, first call, memory, and ratios of times."""
    names = wanted("memory", "devices")
    results = [found for case in CASES if case in names for found in _case(case)]
    for name, measure in (("memory", _memory_of_large_batches), ("devices", _work_of_devices)):
        if name in names:
            results += measure()
    return results


def _case(case: str) -> list[dict[str, Any]]:
    own = trainings(case)
    parameters = own["private"].parameters()
    calls = with_plain_equinox(case, {name: timed(training) for name, training in own.items()}, parameters=parameters)
    first = {name: call() for name, call in calls.items()}
    warmup, rounds = _LARGE if is_large(case) else _SMALL
    take = in_turn(warmup, int(os.environ.get("BENCH_ROUNDS", rounds)))
    seconds, of_peers = beside_peers(case, calls, take, parameters=parameters, note=say)
    calls_of_all = first_calls(case, first | of_peers)
    return [*speeds(case, seconds), *calls_of_all, *memory(case, own), *ratios(case, seconds)]


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
    """Processor seconds of the same step on simulated devices of one processor: a small batch, and a large one."""
    results = []
    for case, count in itertools.product(_SHARED_CASES, _DEVICES):
        call = [sys.executable, "-m", "tests.benchmarks.step_devices", case]
        # Even a count of one would make all threads share a heap.
        flags = "" if count == 1 else f"--xla_force_host_platform_device_count={count}"
        environment = {**os.environ, "XLA_FLAGS": flags}
        found = json.loads(subprocess.run(call, check=True, capture_output=True, env=environment).stdout)
        for name, seconds in found.items():
            variant = f"{name}, {count} devices"
            results.append(measurement(case, variant, "processor s", [seconds], more_is_better=False))
    return results
