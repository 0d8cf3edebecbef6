"""`python -m tests.benchmarks.gpu_part LINES WORD ...`: one part of the benchmark of a GPU (`gpu_parts.py`).

Writes a JSON object per measurement to the file LINES, at once, so that what was measured before an end stays.
"""

import os
import sys
from pathlib import Path

from dpmed.runtime.malloc import keep_freed_memory
from dpmed.runtime.programs import keep_programs
from tests.benchmarks.gpu_lines import Lines, require_backend


def main() -> None:
    """Run the part."""
    keep_freed_memory(os.environ)
    path, (kind, *words) = Path(sys.argv[1]), sys.argv[2:]
    # Before JAX is imported. Programs of a run are kept for its later parts only: the first call of each is cold.
    keep_programs(os.environ, path.parent / "steps")
    from tests.benchmarks import gpu_steps, gpu_trainings

    kinds = {
        "step": gpu_steps.step,
        "places": gpu_steps.places,
        "first": gpu_steps.first,
        "noise": gpu_steps.noise,
        "quickstart": gpu_trainings.quickstart,
        "twin": gpu_trainings.twin,
    }
    if kind in ("step", "places", "noise"):
        # Others only start processes, which need all of the device.
        require_backend()
    kinds[kind](Lines(path, "-".join([kind, *words])), *words)


if __name__ == "__main__":
    main()
