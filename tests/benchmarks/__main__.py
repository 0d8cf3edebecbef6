"""`python -m tests.benchmarks [PART ...]`: run the benchmarks and write build/bench.json.

A part is a module `bench_PART.py` with `run() -> list` of measurements; peers that are not installed are left out and
named on the way.
"""

import importlib
import sys
from pathlib import Path

from dpmed.runtime.malloc import keep_freed_memory
from tests.benchmarks.record import BUILD, table, write


def main() -> None:
    """Run the parts asked for, or all."""
    keep_freed_memory()  # as the command line does
    available = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    parts = sys.argv[1:] or available
    unknown = [part for part in parts if part not in available]
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; there are {', '.join(available)}")
    results = []
    for part in parts:
        print(f"== {part}", flush=True)
        measured = importlib.import_module(f"tests.benchmarks.bench_{part}").run()
        print(table(measured), flush=True)
        results += measured
    name = "bench.json" if parts == available else f"bench-{'-'.join(parts)}.json"
    write(results, BUILD / name)
    print(BUILD / name)


if __name__ == "__main__":
    main()
