"""`python -m tests.benchmarks.step_memory MICROBATCHES`: the peak memory of steps of so many microbatches of 32.

Prints one JSON object: megabytes resident at most in this process, and XLA's analysis of a microbatch.
"""

import json
import os
import sys
from pathlib import Path

from dpmed.runtime.malloc import keep_freed_memory

CASE = "small_cnn-32x32x3-b32"
# The same number for every batch size, so that the allocator has settled alike.
_MICROBATCHES = 640


def main() -> None:
    """Run the steps and print."""
    keep_freed_memory(os.environ)  # before anything that compiles is imported
    from tests.benchmarks.step_cases import trainings

    microbatches = int(sys.argv[1])
    training = trainings(CASE, microbatches=microbatches)["private"]
    for _ in range(_MICROBATCHES // microbatches):
        training()
    print(json.dumps({"peak": _peak(), "analysis": training.memory()}))


def _peak() -> float:
    # Of this program alone: getrusage hands down what the parent process held when it started this one.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


if __name__ == "__main__":
    main()
