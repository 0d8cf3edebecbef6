"""The start: whole processes from the shell, with no compiled program kept (cold) and with those of the run before.

The quickstart to its end, and the twin of ham10000 to its first private step, by the clock and by the processor; in
turn, beside Opacus' quickstart to its first step if DPMED_TORCH_PYTHON names its interpreter. `DPMED_BENCH_PHANTOMS`
(600) says how many phantoms the twin has: minutes to draw.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.record import measurement

_PHANTOMS = os.environ.get("DPMED_BENCH_PHANTOMS", "600")
_ROUNDS = 3
# What `dpmed` does, ended when the first step's counts have been read; it fails if that goes unnoticed.
TO_FIRST_STEP = """
import os, sys
from dpmed.files import user_cache
from dpmed.runtime.malloc import collect_rarely, keep_freed_memory
from dpmed.runtime.programs import keep_programs
keep_freed_memory(os.environ), collect_rarely(), keep_programs(os.environ, user_cache())
from dpmed.training import loop
assert callable(loop._describe)
loop._describe = lambda *arguments, **named: os._exit(0)
from dpmed.cli.app import main
try:
    main()
finally:
    os._exit(3)
"""


def run() -> list[dict[str, Any]]:
    """Seconds of each, cold and warm."""
    found: dict[tuple[str, str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="dpmed-bench-") as name:
        folder = Path(name)
        call = [sys.executable, "-m", "dpmed", "--quiet", "phantom", "ham10000", "--num", _PHANTOMS, "--seed", "1"]
        subprocess.run([*call, "--out", str(folder / "ham10000")], check=True, capture_output=True)
        opacus = _opacus(folder)
        for turn in range(_ROUNDS):
            for case, command in _cases(folder).items():
                for variant in ("cold", "warm"):
                    _note(found, case, variant, command, folder, turn)
            if opacus is not None:
                _note(found, "quickstart-first-step", "opacus", opacus, folder, turn)
    return [
        measurement(case, variant, unit, values, more_is_better=False)
        for (case, variant, unit), values in found.items()
    ]


def _cases(folder: Path) -> dict[str, list[str]]:
    twin = ["train", "ham10000_dp_phantom", "--set", f"data.root={folder / 'ham10000'}"]
    return {
        "quickstart-to-end": [sys.executable, "-m", "dpmed", "--quiet", "train", "quickstart"],
        "quickstart-first-step": [sys.executable, "-c", TO_FIRST_STEP, "--quiet", "train", "quickstart"],
        "ham10000_dp_phantom-first-step": [sys.executable, "-c", TO_FIRST_STEP, "--quiet", *twin],
    }


def _opacus(folder: Path) -> list[str] | None:
    python = os.environ.get("DPMED_TORCH_PYTHON")
    if python is None:
        print("opacus is left out: DPMED_TORCH_PYTHON is not set")
        return None
    # Of the shape of the quickstart's digits: how long a start takes does not depend on what they show.
    generator = np.random.default_rng(0)
    parts = {"train": 1293, "test": 360}
    images = {f"{part}_x": generator.random((size, 8, 8), np.float32) for part, size in parts.items()}
    labels = {f"{part}_y": generator.integers(0, 10, size) for part, size in parts.items()}
    np.savez(folder / "digits.npz", **images, **labels)
    script = Path(__file__).with_name("opacus_quickstart.py")
    return [python, str(script), str(folder / "digits.npz"), "0", "1.5", "1"]


def _note(
    found: dict[tuple[str, str, str], list[float]], case: str, variant: str, command: list[str], folder: Path, turn: int
) -> None:
    # Compiled programs of one case and turn: the cold run leaves them to the warm one.
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / f"cache-{case}-{turn}")}
    out = [] if variant == "opacus" else ["--out", str(folder / f"{case}-{variant}-{turn}")]
    before, begun = _processor_seconds(), time.perf_counter()
    subprocess.run([*command, *out], check=True, capture_output=True, env=environment)
    taken = {"s": time.perf_counter() - begun, "processor s": _processor_seconds() - before}
    print(case, variant, taken, flush=True)
    for unit, value in taken.items():
        found.setdefault((case, variant, unit), []).append(value)


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
