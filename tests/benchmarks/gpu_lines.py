"""What a part of the benchmark of a GPU writes, and the environment of the processes that it starts."""

import json
import os
from pathlib import Path
from typing import Any

from tests.benchmarks.record import left_out


class Lines:
    """The file of measurements.

    Attributes:
        folder: where parts of one run leave what later ones use.
    """

    def __init__(self, path: Path, case: str) -> None:
        self.folder = path.parent
        self._path = path
        self._case = case

    def add(self, *found: dict[str, Any]) -> None:
        """Append measurements."""
        with self._path.open("a") as file:
            file.writelines(json.dumps(one) + "\n" for one in found)

    def note(self, sentence: str) -> None:
        """Say and append what was left out."""
        print(sentence, flush=True)
        self.add(left_out(self._case, sentence))


def with_programs_in(folder: Path) -> dict[str, str]:
    """The environment, for a `dpmed` that keeps its compiled programs there, not where this process has its own."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION")}
    return others | {"XDG_CACHE_HOME": str(folder)}


def require_backend() -> None:
    """End unless JAX computes where it was asked to: it may fall back to the CPU with no more than a warning."""
    import jax

    wanted = os.environ["BENCH_GPU_BACKEND"]
    if jax.default_backend() != wanted:
        raise SystemExit(f"JAX computes on {jax.default_backend()}, not on {wanted}")
