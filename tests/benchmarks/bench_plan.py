"""Planning a large table of 14 findings: wall seconds and peak memory of a process of its own, decoding left out.

`DPMED_BENCH_ROWS` (10000,100000) names the sizes. Every row has a file of its own, a tiny picture.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dpmed.data.layouts import FINDINGS
from tests.benchmarks.record import measurement

_ROWS = [int(rows) for rows in os.environ.get("DPMED_BENCH_ROWS", "10000,100000").split(",")]
_ROUNDS = 3
# The plan of `dpmed train --dry-run` without its contact sheet and compiling; with and without the imports; processor
# seconds too, for machines that others use.
_SCRIPT = """
import sys, time
begun = time.perf_counter()
from dpmed.config.load import load_config
from dpmed.planning.plan import make_plan
from dpmed.progress import Silent
imported, used = time.perf_counter(), time.process_time()
plan = make_plan(load_config(sys.argv[1], []).config, Silent())
plan.describe()
ended = time.perf_counter()
lines = open("/proc/self/status").read().splitlines()
peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
print(ended - begun, ended - imported, time.process_time() - used, peak)
"""
_CONFIG = """
[data]
name = "table"
root = "{root}"
table = "t.csv"
image = "image"
labels = {labels}
patient = "patient"
size = [8, 8]
channels = 1
depth = 8
cache = false
[model]
name = "mlp"
[loss]
name = "binary_cross_entropy"
[optimizer]
name = "sgd"
learning_rate = 0.1
[training]
epochs = 3
batch_size = 1024
[privacy]
epsilon = 8.0
delta = 1e-6
clipping_norm = 1.0
unit = "patient"
"""


def run() -> list[dict[str, Any]]:
    """Seconds and megabytes for every size."""
    results = []
    for rows in _ROWS:
        with tempfile.TemporaryDirectory(prefix="dpmed-bench-") as folder:
            config = _write(Path(folder), rows)
            call = [sys.executable, "-c", _SCRIPT, str(config)]
            found = [subprocess.run(call, check=True, capture_output=True, text=True).stdout for _ in range(_ROUNDS)]
        columns = zip(*(map(float, text.split()) for text in found), strict=True)
        for (variant, unit), values in zip(
            (("with imports", "s"), ("plan", "s"), ("plan", "processor s"), ("peak of the process", "MB")),
            columns,
            strict=True,
        ):
            results.append(measurement(f"plan-table-{rows}x14", variant, unit, list(values), more_is_better=False))
    return results


def _write(root: Path, rows: int) -> Path:
    names = [f"images/{number % 100}/{number}.png" for number in range(rows)]
    for number in range(100):
        (root / "images" / str(number)).mkdir(parents=True)
    for name in names:
        (root / name).touch()
    findings = (",".join("01"[(number >> place) & 1] for place in range(len(FINDINGS))) for number in range(rows))
    lines = [
        f"{name},P{number // 3},{labels}" for number, (name, labels) in enumerate(zip(names, findings, strict=True))
    ]
    (root / "t.csv").write_text("\n".join([",".join(["image", "patient", *FINDINGS]), *lines]) + "\n", encoding="utf-8")
    config = root / "plan.toml"
    config.write_text(_CONFIG.format(root=root, labels=list(FINDINGS)).replace("'", '"'), encoding="utf-8")
    return config
