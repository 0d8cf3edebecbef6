"""The cohort file: a million units in a thousand runs, grouped by equal histories and composed."""

import time
from typing import Any

import numpy as np

from dpmed.privacy.cohort.records import EnteredRun, Snapshot
from dpmed.privacy.cohort.spending import equal_histories, spent
from dpmed.privacy.mechanism import SampledGaussian
from tests.benchmarks.record import measurement

UNITS, RUNS, GROUPS = 1_000_000, 1000, 400
KINDS = ((1.5, 0.01, 1000), (2.0, 0.02, 500), (1.0, 0.005, 2000))


def run() -> list[dict[str, Any]]:
    """Seconds by the clock, and of the processor alone."""
    snapshot = _snapshot()
    begun, worked = time.perf_counter(), time.process_time()
    histories = sum(1 for _ in equal_histories(snapshot))
    grouped = time.perf_counter() - begun
    begun, worked = time.perf_counter(), time.process_time()
    found = spent(snapshot)
    seconds, processor = time.perf_counter() - begun, time.process_time() - worked
    assert histories == GROUPS and sum(history.units for history in found) == UNITS
    case = f"budget-{UNITS}-units-{RUNS}-runs"
    return [
        measurement(case, "grouped", "s", [grouped], more_is_better=False),
        measurement(case, "grouped and composed", "s", [seconds], more_is_better=False),
        measurement(case, "grouped and composed, processor", "s", [processor], more_is_better=False),
    ]


def _snapshot() -> Snapshot:
    """Units in groups that always go together, each in every twentieth run; three kinds of runs."""
    generator = np.random.default_rng(0)
    group = generator.integers(0, GROUPS, UNITS)
    runs = []
    for number in range(RUNS):
        noise, rate, steps = KINDS[number % len(KINDS)]
        mechanism = SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps)
        members = (generator.random(GROUPS) < 0.05)[group]
        entered = {"token": str(number), "entered": "", "folder": "", "data": "", "status": "finished"}
        runs.append(EnteredRun(number=number + 1, mechanism=mechanism, made=steps, members=members, **entered))
    return Snapshot(unit="patient", delta=1e-6, limit=None, units=UNITS, runs=tuple(runs))
