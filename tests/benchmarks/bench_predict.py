"""Prediction: pictures per second of `dpmed predict`, and its memory over many small files.

The peer torch runs in an interpreter of its own, named by DPMED_TORCH_PYTHON; without it, it is left out.
`DPMED_BENCH_PREDICTIONS` (2000) and `DPMED_BENCH_SMALL_FILES` (20000) set the sizes.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dpmed.config.model import MlpModel, Resnet9Model
from dpmed.data.layouts import write_phantom
from dpmed.inference.bundle.files import write_bundle
from dpmed.inference.network import eqx_digest, named_arrays
from dpmed.progress import Silent
from dpmed.workflows import predict
from dpmed.workflows.predict import PredictSettings
from tests.benchmarks.record import measurement
from tests.inference.made import ledger_bytes, make_network

_PICTURES = int(os.environ.get("DPMED_BENCH_PREDICTIONS", "2000"))
_SMALL = int(os.environ.get("DPMED_BENCH_SMALL_FILES", "20000"))
_SETTLED = 1000
_ROUNDS = 3
_BATCH = 64


def run() -> list[dict[str, Any]]:
    """All measurements."""
    folder = Path(tempfile.mkdtemp(prefix="dpmed-bench-"))
    try:
        return [*_pictures(folder), *_memory(folder)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bundle(folder: Path, config: Any, shape: tuple[int, ...]) -> Path:
    network, description = make_network(config, shape, classes=("no", "yes"))
    folder.mkdir()
    digest = eqx_digest(named_arrays(network))
    ledger = ledger_bytes(model_sha256=digest)
    write_bundle(folder, description=description, network=network, ledger=ledger, card="# Made for a benchmark\n")
    return folder


def _pictures(folder: Path) -> list[dict[str, Any]]:
    """HAM10000-sized JPEGs and the ResNet-9 of its twin; loading and compiling the model are counted."""
    root = folder / "ham"
    root.mkdir()
    write_phantom("ham10000", root, num=_PICTURES, seed=0, progress=Silent())
    model = _bundle(folder / "resnet9", Resnet9Model(name="resnet9", channels=(8, 16, 32, 32), groups=8), (32, 32, 3))
    settings = PredictSettings(models=(model,), inputs=(root,), batch_size=_BATCH)
    python = os.environ.get("DPMED_TORCH_PYTHON", "")
    seconds: dict[str, list[float]] = {"dpmed predict": [], "torch": []}
    for turn in range(_ROUNDS):
        begun = time.perf_counter()
        summary = predict.run(predict.prepare(settings, Silent()), folder / f"out{turn}", Silent())
        seconds["dpmed predict"].append(time.perf_counter() - begun)
        assert (summary.inputs, summary.errors) == (_PICTURES, 0)
        if python:
            script = Path(__file__).with_name("torch_predict.py")
            command = [python, str(script), str(root), str(_BATCH), "1"]
            seconds["torch"] += json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    if not python:
        print("torch is left out: DPMED_TORCH_PYTHON is not set")
    return [
        measurement("predict-600x450-resnet9", name, "images/s", [_PICTURES / s for s in values], more_is_better=True)
        for name, values in seconds.items()
        if values
    ]


def _memory(folder: Path) -> list[dict[str, Any]]:
    """The highest resident memory after the first thousand files, and after all."""
    small = folder / "small"
    small.mkdir()
    random = np.random.default_rng(0)
    for number in range(_SMALL):
        Image.fromarray(random.integers(0, 256, (32, 32), dtype=np.uint8)).save(small / f"{number:06d}.png")
    model = _bundle(folder / "mlp", MlpModel(name="mlp", width=(8,)), (8, 8, 1))
    # Of this process and so far: what other measurements took before is not counted.
    Path("/proc/self/clear_refs").write_text("5")
    peaks = _Peaks()
    job = predict.prepare(PredictSettings(models=(model,), inputs=(small,)), peaks)
    predict.run(job, folder / "many", peaks)
    values = {f"after {_SETTLED} files": peaks.settled, f"after {_SMALL} files": _peak()}
    return [measurement("predict-memory", name, "MB", [value], more_is_better=False) for name, value in values.items()]


class _Peaks(Silent):
    """Notes the memory when a thousand files are done."""

    def __init__(self) -> None:
        self.settled = 0.0
        self._done = 0

    @contextmanager
    def task(self, name: str, *, total: int | None, unit: str = "", done: int = 0) -> Iterator["_Peaks"]:
        yield self

    def advance(self, amount: int = 1, *, note: str = "") -> None:
        self._done += amount
        if self._done >= _SETTLED and not self.settled:
            self.settled = _peak()


def _peak() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
