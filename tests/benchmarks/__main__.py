"""`python -m tests.benchmarks [PART ...]`: run the benchmarks and write build/bench.json.

A part is a module `bench_PART.py` with `run() -> list` of measurements; peers that are not installed are left out and
named on the way. A part that needs more than any machine has says by `unavailable() -> str | None` why it cannot run.
"""

import importlib
import os
import sys
from pathlib import Path

from dpmed.runtime.malloc import keep_freed_memory
from tests.benchmarks.record import BUILD, left_out, table, write


def main() -> None:
    """Run the parts asked for, or all."""
    keep_freed_memory(os.environ)  # as the command line does
    # As much as is needed: other processes that some parts start need memory of the same GPU, and a peak would be all.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    available = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    parts = sys.argv[1:] or available
    unknown = [part for part in parts if part not in available]
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are {', '.join(available)}")
    results = []
    for part in parts:
        print(f"== {part}", flush=True)
        module = importlib.import_module(f"tests.benchmarks.bench_{part}")
        reason = module.unavailable() if hasattr(module, "unavailable") else None
        if reason is not None:
            if part in sys.argv[1:]:
                sys.exit(reason)
            results.append(left_out(part, reason))
            print(f"left out: {reason}", flush=True)
            continue
        measured = module.run()
        print(table(measured), flush=True)
        results += measured
    name = "bench.json" if parts == available else f"bench-{'-'.join(parts)}.json"
    write(results, BUILD / name)
    print(BUILD / name)


if __name__ == "__main__":
    main()
