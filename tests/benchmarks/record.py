"""How a measurement is taken and written: interleaved in one run, medians, one JSON object each."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

BUILD = Path(__file__).resolve().parents[2] / "build"


def machine() -> str:
    """This machine in a few words."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


def measurement(case: str, variant: str, unit: str, values: list[float], *, more_is_better: bool) -> dict[str, Any]:
    """One object of the list that `make bench` writes."""
    best = max(values) if more_is_better else min(values)
    median = statistics.median(values)
    return {
        "case": case,
        "variant": variant,
        "unit": unit,
        "median": median,
        "best": best,
        "runs": len(values),
        "machine": machine(),
    }


def left_out(case: str, reason: str) -> dict[str, Any]:
    """An object of the same list for what was to be measured and was not."""
    return {"case": case, "left_out": reason, "machine": machine()}


def interleaved(
    variants: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of each variant, taken in turn, so that a drifting machine drifts for all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warmup + rounds):
        for name, call in variants.items():
            begun = time.perf_counter()
            call()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def write(results: list[dict[str, Any]], path: Path) -> None:
    """Write the measurements as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")


def table(results: list[dict[str, Any]]) -> str:
    """The measurements as lines for a terminal, and below them what was left out."""
    measured = [r for r in results if "left_out" not in r]
    rows = [(r["case"], r["variant"], f"{r['median']:.4g}", f"{r['best']:.4g}", r["unit"]) for r in measured]
    widths = [
        max(len(row[column]) for row in [*rows, ("case", "variant", "median", "best", "unit")]) for column in range(5)
    ]
    lines = [("case", "variant", "median", "best", "unit"), *rows]
    missing = [f"left out: {r['case']}: {r['left_out']}" for r in results if "left_out" in r]
    cells = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([*cells, *missing])
