"""Loading: pictures per second, volumes, memory over an epoch, and the loader's share of a training step.

The peer torch runs in an interpreter of its own, named by DPMED_TORCH_PYTHON; without it, it is left out.
`DPMED_BENCH_PICTURES` (600) and `DPMED_BENCH_PHANTOMS` (10000) set the sizes.
"""

import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from dpmed.config.data import FolderData, Ham10000Data
from dpmed.data.build import build_dataset
from dpmed.data.layouts import write_phantom
from dpmed.data.loader import Loader
from dpmed.progress import Silent
from tests.benchmarks.record import measurement

_PICTURES = int(os.environ.get("DPMED_BENCH_PICTURES", "600"))
_PHANTOMS = int(os.environ.get("DPMED_BENCH_PHANTOMS", "10000"))
_BATCH = 32
_ROUNDS = 5
_VOLUME = """
import sys, time
from pathlib import Path
path = Path(sys.argv[1])
def peak():  # of this program; getrusage would hand down that of its parent
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
if sys.argv[2] == "dpmed":
    import nibabel.orientations, PIL.Image, numpy
    from dpmed.data.decode.nifti import read_nifti
    from dpmed.data.decode.volume import Grid, read_intensities
    before, begun = peak(), time.perf_counter()
    out = read_intensities(read_nifti(path), Grid(shape=(128, 128, 50)), window=(-150.0, 200.0))[..., 0]
else:
    import nibabel, numpy
    from scipy.ndimage import zoom
    before, begun = peak(), time.perf_counter()
    values = numpy.clip(nibabel.as_closest_canonical(nibabel.load(path)).get_fdata(), -150, 200)
    out = zoom(values, (128 / 512, 128 / 512, 50 / 150), order=int(sys.argv[2]))
assert out.shape == (128, 128, 50)
print(time.perf_counter() - begun, peak() - before)
"""


def run() -> list[dict[str, Any]]:
    """All measurements."""
    folder = Path(tempfile.mkdtemp(prefix="dpmed-bench-"))
    try:
        return [*_pictures(folder), *_volumes(folder), *_memory(folder), *_shares(folder)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pictures(folder: Path) -> list[dict[str, Any]]:
    """HAM10000-sized JPEGs, 600 × 450 to 224 × 224, the variants in turn."""
    root = folder / "ham"
    root.mkdir()
    write_phantom("ham10000", root, num=_PICTURES, seed=0, progress=Silent())
    config = Ham10000Data(name="ham10000", root=root, cache=False)
    plain = build_dataset(config, progress=Silent())
    seconds: dict[str, list[float]] = {
        name: [] for name in ("first pass", "building the cache", "cached pass", "torch")
    }
    python = os.environ.get("DPMED_TORCH_PYTHON", "")
    for turn in range(_ROUNDS):
        cached_config = config.model_copy(update={"cache": True, "cache_folder": folder / f"cache{turn}"})
        begun = time.perf_counter()
        cached = build_dataset(cached_config, progress=Silent())
        seconds["building the cache"].append(time.perf_counter() - begun)
        seconds["first pass"].append(_pass(plain))
        _pass(cached)
        seconds["cached pass"].append(_pass(cached))
        if python:
            script = Path(__file__).with_name("torch_loader.py")
            command = [python, str(script), str(root), str(_BATCH), "1"]
            seconds["torch"] += json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        shutil.rmtree(folder / f"cache{turn}")
    if not python:
        print("torch is left out: DPMED_TORCH_PYTHON is not set")
    return [
        measurement("jpeg-600x450-to-224", name, "samples/s", [_PICTURES / s for s in values], more_is_better=True)
        for name, values in seconds.items()
        if values
    ]


def _pass(dataset: Any) -> float:
    members = [np.array([number]) for number in range(len(dataset))]
    loader = Loader(dataset, members, microbatch=_BATCH, workers=2)
    begun = time.perf_counter()
    count = sum(int(records.mask.sum()) for step in loader.stream([np.arange(len(dataset))]) for records in step)
    assert count == len(dataset)
    return time.perf_counter() - begun


def _volumes(folder: Path) -> list[dict[str, Any]]:
    """One 512 × 512 × 150 int16 `.nii.gz` to 128 × 128 × 50, each time in a fresh process, the variants in turn."""
    import nibabel

    path = folder / "volume.nii.gz"
    random = np.random.default_rng(0)
    x, y, z = np.meshgrid(
        *[np.linspace(0, 9, side, dtype=np.float32) for side in (512, 512, 150)], indexing="ij", sparse=True
    )
    values = 200 * np.sin(x) + 150 * np.cos(y) + 20 * z + random.normal(0, 12, (512, 512, 150))
    nibabel.Nifti1Image(values.astype(np.int16), np.diag([0.8, 0.8, 2.5, 1.0])).to_filename(path)
    del values
    variants = {"dpmed": "dpmed", "nibabel+scipy": "3", "nibabel+scipy-linear": "1"}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for _ in range(_ROUNDS):
        for name, argument in variants.items():
            command = [sys.executable, "-c", _VOLUME, str(path), argument]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name].append((float(text.split()[0]), float(text.split()[1])))
    results = []
    for name, pairs in found.items():
        for unit, values in zip(("s", "MB"), zip(*pairs, strict=True), strict=True):
            results.append(
                measurement("nifti-512x512x150-to-128x128x50", name, unit, list(values), more_is_better=False)
            )
    return results


def _memory(folder: Path) -> list[dict[str, Any]]:
    """How far resident memory rises over an epoch of phantoms after its first tenth, decoded anew and cached."""
    root = folder / "many"
    root.mkdir()
    write_phantom("folder", root, num=_PHANTOMS, seed=0, progress=Silent())
    results = []
    for variant, cache in (("decoded", False), ("cached", True)):
        config = FolderData(name="folder", root=root, cache=cache, cache_folder=folder / "cache")
        dataset = build_dataset(config, progress=Silent())
        members = [np.array([number]) for number in range(len(dataset))]
        levels = []
        loader = Loader(dataset, members, microbatch=_BATCH)
        for step in loader.stream(np.array_split(np.random.default_rng(0).permutation(len(dataset)), 20)):
            for _ in step:
                pass
            gc.collect()
            levels.append(_resident())
        rise = max(levels[2:]) - levels[1]
        results.append(
            measurement(f"epoch-of-{_PHANTOMS}-224x224x3", f"{variant}, rise", "MB", [rise], more_is_better=False)
        )
    return results


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class _TimedLoader(Loader):
    """Notes how long each step lasts and how much of it the loop waits for microbatches."""

    steps: list[tuple[float, float]] = []  # noqa: RUF012 read by the benchmark after the workflow has made its loader

    def stream(self, steps: Any) -> Any:
        waited, begun = 0.0, time.perf_counter()
        stream = super().stream(steps)

        def timed(source: Any) -> Any:
            nonlocal waited
            while True:
                start = time.perf_counter()
                item = next(source, None)
                waited += time.perf_counter() - start
                if item is None:
                    return
                yield item

        for step in timed(stream):
            yield timed(step)
            now = time.perf_counter()
            self.steps.append((now - begun, waited))
            waited, begun = 0.0, now


def _shares(folder: Path) -> list[dict[str, Any]]:
    """The share of a private step that the loop waits for the loader: quickstart, and pictures with a small network."""
    import tomli_w

    small = {
        "data": {"name": "ham10000", "root": str(folder / "ham"), "cache_folder": str(folder / "sharecache")},
        "model": {"name": "small_cnn"},
        "loss": {"name": "cross_entropy"},
        "optimizer": {"name": "nadam", "learning_rate": 0.001},
        "training": {"epochs": 1, "batch_size": 32},
        "privacy": {"epsilon": 8.0, "delta": 1e-5, "clipping_norm": 1.0},
    }
    path = folder / "small.toml"
    path.write_text(tomli_w.dumps(small))
    results = []
    for case, config, overrides in (
        ("share-of-step-quickstart", "quickstart", ["training.epochs=15"]),
        ("share-of-step-ham-small-cnn", str(path), []),
        ("share-of-step-ham-small-cnn-uncached", str(path), ["data.cache=false"]),
    ):
        shares = _share(config, overrides, folder / case)
        results.append(measurement(case, "private", "%", [100 * statistics.median(shares)], more_is_better=False))
    return results


def _share(config: str, overrides: list[str], out: Path) -> list[float]:
    from dpmed.config.load import load_config
    from dpmed.planning import computation as computation_module
    from dpmed.planning.plan import make_plan
    from dpmed.workflows.train import run as workflow

    _TimedLoader.steps.clear()
    plain, computation_module.Loader = computation_module.Loader, _TimedLoader
    try:
        plan = make_plan(load_config(config, overrides).config, Silent())
        out.mkdir(mode=0o700)
        workflow.run(plan, out, Silent())
    finally:
        computation_module.Loader = plain
    # The first steps compile; a step that ends an epoch evaluates and saves, which is no part of it.
    every = plan.steps_per_epoch
    steps = [pair for number, pair in enumerate(_TimedLoader.steps, start=1) if number > 3 and number % every]
    return [waited / lasted for lasted, waited in steps]
