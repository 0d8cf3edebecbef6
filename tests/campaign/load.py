"""Large inputs, three sizes of each: time and memory of the commands that read them, and how these grow.

What is made lies in memory where that can be had; each command is a process of its own. Its CPU time and its largest
resident memory are stated, and what one more row, file, run or slice costs between one size and the next: where that
rises, growth is faster than linear.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.campaign.scenarios import PLACE

_ROOT = Path(__file__).resolve().parents[2]
# The entry and its words are called, and what that took is written to the first of the arguments.
_MEASURED = """
import atexit, importlib, json, pathlib, resource, sys
def tell(path=sys.argv[1]):
    used = resource.getrusage(resource.RUSAGE_SELF)
    status = pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1]
    found = {"user": used.ru_utime, "system": used.ru_stime, "peak_mb": int(status.split()[0]) / 1024}
    pathlib.Path(path).write_text(json.dumps(found))
atexit.register(tell)
module, _, name = sys.argv[2].partition(":")
getattr(importlib.import_module(module), name)(*sys.argv[3:])
"""
_DPMED = "tests.forked:command"
_VOLUME = "tests.campaign.bulk:read_volume"
_LATEST = 3600.0  # seconds for a command


@dataclass(frozen=True, kw_only=True)
class Load:
    """One kind of input, and what reads it.

    Attributes:
        writer: its name in `tests.campaign.bulk.WRITERS`.
        sizes: ascending.
        commands: words by name, called one after the other in the folder that was written; the first word is what is
            called.
    """

    writer: str
    sizes: tuple[int, ...]
    commands: dict[str, Sequence[str]]


_PLAN = (_DPMED, "-q", "train", "run.toml", "--dry-run", "--out")
_BUDGET = (_DPMED, "-q", "budget", "cohort.db")
_COHORT = {
    "budget": _BUDGET,
    "budget --check": (*_BUDGET, "--check", "run.toml"),
    "train within a limit": (_DPMED, "-q", "train", "run.toml", "--set", "privacy.cohort_epsilon=1e6", "--out", "run"),
    "budget --id": (*_BUDGET, "--id", "P0000001"),
    "train --dry-run": (*_PLAN, "plan"),
}
LOADS = {
    "table": Load(writer="table", sizes=(10_000, 100_000, 1_000_000), commands={"train --dry-run": (*_PLAN, "plan")}),
    "folder": Load(
        writer="folder",
        sizes=(1_000, 10_000, 100_000),
        commands={"train --dry-run, cache built": (*_PLAN, "plan"), "the same with the cache": (*_PLAN, "again")},
    ),
    "cohort": Load(writer="cohort", sizes=(100, 1_000, 10_000), commands=_COHORT),
    "cohort-differing": Load(writer="cohort-differing", sizes=(100, 1_000, 10_000), commands=_COHORT),
    "series": Load(writer="series", sizes=(200, 800, 2_000), commands={"read": (_VOLUME, "volume")}),
    "nifti": Load(writer="nifti", sizes=(200, 800, 2_000), commands={"read": (_VOLUME, "volume.nii")}),
    "nifti-gz": Load(writer="nifti-gz", sizes=(200, 800, 2_000), commands={"read": (_VOLUME, "volume.nii.gz")}),
}


def measure(words: Sequence[str], folder: Path) -> dict[str, float]:
    """Wall and CPU time, s, and largest resident memory, MB, of a call in a process of its own.

    Raises:
        RuntimeError: it fails.
    """
    told = folder / "told.json"
    place = {"PYTHONPATH": str(_ROOT), "XDG_CACHE_HOME": str(folder / "cache"), "JAX_PLATFORMS": "cpu"}
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(told), *words],
        cwd=folder,
        env={**os.environ, **place},
        capture_output=True,
        text=True,
        timeout=_LATEST,
    )
    wall = time.monotonic() - begun
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ends with {done.returncode}: {done.stderr[-400:]}")
    found = json.loads(told.read_text())
    cpu = found["user"] + found["system"]
    return {"wall_seconds": round(wall, 2), "cpu_seconds": round(cpu, 2), "peak_mb": round(found["peak_mb"])}


def growth(sizes: Sequence[int], costs: Sequence[float]) -> list[float]:
    """What one more costs between each size and the next."""
    pairs = zip(zip(sizes, costs, strict=True), zip(sizes[1:], costs[1:], strict=True), strict=False)
    return [(after - before) / (more - few) for (few, before), (more, after) in pairs]


def campaign(only: list[str], *, num: int, seconds: float, seed: int, rows: Sequence[int] = ()) -> dict[str, object]:
    """Measure each kind of input at its sizes up to `num`, or at those of `rows`.

    Args:
        only: names of loads; empty for all.
        num: the largest size.
        seconds: no further size is begun after so long.
        seed: all is made from seed 0.
        rows: sizes to be measured in place of each load's own.
    """
    del seed
    begun = time.monotonic()
    measured: dict[str, dict[str, dict[str, object]]] = {}
    broken: list[dict[str, object]] = []
    for name in only or list(LOADS):
        load = LOADS[name]
        found: dict[str, dict[int, dict[str, float]]] = {}
        for size in (size for size in rows or load.sizes if size <= num):
            if time.monotonic() - begun > seconds:
                break
            with tempfile.TemporaryDirectory(prefix="dpmed-load-", dir=PLACE) as place:
                folder = Path(place)
                making = [sys.executable, "-m", "tests.campaign.bulk", load.writer, str(size), place]
                subprocess.run(making, cwd=_ROOT, check=True)
                for command, words in load.commands.items():
                    try:
                        found.setdefault(command, {})[size] = measure(words, folder)
                    except (RuntimeError, subprocess.TimeoutExpired) as error:
                        broken.append({"case": f"{name} {size}: {command}", "found": [str(error)]})
                        continue
                    print(f"{name} {size:,}: {command}: {found[command][size]}", flush=True)
        measured[name] = {command: {"sizes": costs, **_growth(costs)} for command, costs in found.items()}
    return {"measured": measured, "broken": broken}


def _growth(costs: dict[int, dict[str, float]]) -> dict[str, object]:
    sizes = sorted(costs)
    cpu = growth(sizes, [costs[size]["cpu_seconds"] for size in sizes])
    memory = growth(sizes, [costs[size]["peak_mb"] for size in sizes])
    return {"cpu_ms_for_one_more": [round(1000 * one, 4) for one in cpu],
            "kb_for_one_more": [round(1024 * one, 3) for one in memory]}  # fmt: skip
