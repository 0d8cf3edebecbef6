"""Steps and noise on the device, for the benchmark of a GPU."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from dpmed.dpsgd.cipher import Keystream
from dpmed.dpsgd.noise import seeded_key, standard_normal
from dpmed.dpsgd.places import place_effect, without_zeros
from tests.benchmarks.bench_noise import words_by_xla
from tests.benchmarks.gpu_lines import Lines, with_programs_in
from tests.benchmarks.record import interleaved, measurement
from tests.benchmarks.step_cases import trainings
from tests.benchmarks.step_peers import say
from tests.benchmarks.step_turns import (
    Calls,
    beside_peers,
    first_calls,
    in_turn,
    memory,
    ratio,
    ratios,
    speeds,
    timed,
    with_plain_equinox,
)

_WARMUP, _ROUNDS = 4, 20
# Rounds take milliseconds on a GPU; where they do not, other parts need the time more.
_MOST_SECONDS = 30
_COMPARED_WORDS = 1 << 20
_NOISE_ROUNDS = 5


def step(lines: Lines, case: str, precision: str) -> None:
    """Speeds, first calls, XLA's memory and ratios of a case."""
    rounds = int(os.environ.get("BENCH_ROUNDS", _ROUNDS))
    take = in_turn(_WARMUP, rounds, most_seconds=_MOST_SECONDS)
    (_float32 if precision == "float32" else _bfloat16)(lines, case, take)


def _float32(lines: Lines, case: str, take: Any) -> None:
    own = trainings(case)
    parameters = own["private"].parameters()
    calls: Calls = {name: timed(training) for name, training in own.items()}
    calls = _started(lines, case, with_plain_equinox(case, calls, parameters=parameters))
    lines.add(*memory(case, {name: training for name, training in own.items() if name in calls}))
    seconds, first = beside_peers(case, calls, take, parameters=parameters, note=lines.note)
    lines.add(*speeds(case, seconds), *first_calls(case, first), *ratios(case, seconds))


def _bfloat16(lines: Lines, case: str, take: Any) -> None:
    # That in float32 has been measured by another part, and is here for the ratio.
    private = trainings(case)["private"]
    private()
    own = {f"{name}, bfloat16": one for name, one in trainings(case, precision="bfloat16").items()}
    calls = _started(lines, case, {name: timed(training) for name, training in own.items()})
    seconds = take({"private": timed(private)} | calls, {}, note=lines.note)
    lines.add(
        *speeds(case, {name: seconds[name] for name in calls}),
        *memory(case, {name: own[name] for name in calls}),
    )
    for theirs in ("nonprivate, bfloat16", "private"):
        if {"private, bfloat16", theirs} <= seconds.keys():
            lines.add(ratio(case, seconds, "private, bfloat16", theirs))


def _started(lines: Lines, case: str, calls: Calls) -> Calls:
    """Those that take a first step; its seconds are written at once, since it may be most of the part's time."""
    found = {}
    for name, call in calls.items():
        try:
            lines.add(*first_calls(case, {name: call()}))
            found[name] = call
        except jax.errors.JaxRuntimeError as error:  # out of memory, for one
            lines.note(f"{name} is left out: {str(error).splitlines()[0][:200]}")
    return found


def places(lines: Lines, case: str) -> None:
    """By how much a sum depends on the places of its records, in gradients, and how it differs between calls."""
    training = trainings(case)["private"]
    state = replace(training.state, trainable=without_zeros(training.state.trainable), optimizer=None)
    repeated = jax.tree.map(lambda leaf: np.repeat(leaf[:1], len(leaf), axis=0), training.records)
    effect = place_effect(training.step, state, repeated)

    def summed() -> Any:
        _, total = training.step.accumulate(state, training.step.begin(state), training.records, training.mask)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(total.gradients)])

    wanted = summed()
    apart = max(float(np.linalg.norm(summed() - wanted)) for _ in range(3)) / float(np.linalg.norm(wanted))
    lines.add(
        measurement(case, "all places", "gradients", [effect], more_is_better=False),
        measurement(case, "between calls", "share of the sum", [apart], more_is_better=False),
    )


def first(lines: Lines, case: str) -> None:
    """Whole processes to the end of the first step, and the device's largest use of memory until then."""
    for variant in ("private", "nonprivate"):
        for how in ("cold", "warm"):
            environment = with_programs_in(lines.folder / f"first-{case}-{variant}")
            command = [sys.executable, "-m", "tests.benchmarks.gpu_first", case, variant, str(time.time())]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
            if done.returncode != 0:
                lines.note(f"{variant}, {how}, is left out: its process ended with {done.returncode}")
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            say(f"{variant}, {how}: {found}")
            lines.add(
                measurement(case, f"{variant}, {how}", "s to first step", [found["seconds"]], more_is_better=False)
            )
            _peak(lines, case, f"{variant}, {how}", found["peak"])


def _peak(lines: Lines, case: str, variant: str, peak: int | None) -> None:
    # A cold process' peak has what the compiler tried out; the warm one's is the step's.
    if peak is None:
        lines.note(f"peak of {variant} is left out: this device does not count its memory")
    else:
        lines.add(measurement(case, variant, "MB, device's peak", [peak / 1e6], more_is_better=False))


def noise(lines: Lines, *counts: str) -> None:
    """Milliseconds of a step's noise by the clock, with words of the device and of the host, and their agreement."""
    key = seeded_key(0)
    by_device = np.asarray(words_by_xla(key, _COMPARED_WORDS))
    apart = int(np.sum(by_device != np.asarray(Keystream(key.words, (0, 0, 0)).words(_COMPARED_WORDS))))
    unit = f"words of {_COMPARED_WORDS} that differ"
    lines.add(measurement("noise", "device / host", unit, [apart], more_is_better=False))
    for count in map(int, counts):
        calls = {
            f"words of the {where}": partial(_wait, partial(standard_normal, key, 0, count=count, on_host=on_host))
            for where, on_host in (("device", False), ("host", True))
        }
        for name, seconds in interleaved(calls, rounds=_NOISE_ROUNDS).items():
            lines.add(
                measurement(f"noise-{count}", name, "ms", [1e3 * value for value in seconds], more_is_better=False)
            )


def _wait(call: Any) -> None:
    jax.block_until_ready(call())
