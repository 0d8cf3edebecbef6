"""`python -m tests.benchmarks.step_devices CASE`: processor seconds of a step, on as many devices as there are.

Prints one JSON object with the median of some steps, private and not.
"""

import json
import os
import resource
import statistics
import sys
from collections.abc import Callable

from dpmed.runtime.malloc import keep_freed_memory

WARMUP, STEPS = 6, 8


def main() -> None:
    """Run the steps and print."""
    keep_freed_memory(os.environ)  # before anything that compiles is imported
    from tests.benchmarks.step_cases import trainings

    print(json.dumps({name: _work(training) for name, training in trainings(sys.argv[1]).items()}))


def _work(training: Callable[[], object]) -> float:
    for _ in range(WARMUP):
        training()
    found = []
    for _ in range(STEPS):
        begun = _processor_seconds()
        training()
        found.append(_processor_seconds() - begun)
    return statistics.median(found)


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
