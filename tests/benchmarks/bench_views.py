"""Patients with different numbers of images: views computed, and seconds, of a private step.

400 patients have 1 to 30 images each; 64 are expected in a step. All are padded to 30 views, in microbatches of 8 or in
one for nearly every batch, or to 1, 2, 8 or 30 views in microbatches of 8, as `training.microbatch = "auto"` does. All
variants compute the same batches, in turn.
"""

import os
import statistics
import time
from functools import partial
from typing import Any

import numpy as np

from dpmed.data.base import Info
from dpmed.data.loader import Loader, Records, view_bounds
from dpmed.data.storage.stored import ArrayDataset, Listing
from dpmed.dpsgd.sampling import PoissonSampler
from dpmed.planning.plan import poisson_microbatch
from dpmed.runtime.jit import wait_for
from dpmed.training.loop import accumulate
from tests.benchmarks.record import measurement
from tests.benchmarks.step_cases import CLASSES, Training, trainings

CASE = "small_cnn-32x32x3-b32"
MOST, _PATIENTS, _EXPECTED, _MICROBATCH = 30, 400, 64, 8
_ONE, _WHOLE, _SEVERAL = "one shape", "one shape, whole batch", "several shapes"


def run() -> list[dict[str, Any]]:
    """Views and seconds by how images are spread over patients, and by how records are padded."""
    training = trainings(CASE)["private"]
    shape = training.records["inputs"].shape[2:]
    results = []
    for name, sizes in _spreads().items():
        loaders = {
            _ONE: _loader(sizes, shape, (MOST,), _MICROBATCH),
            _WHOLE: _loader(sizes, shape, (MOST,), poisson_microbatch(_EXPECTED, _PATIENTS)),
            _SEVERAL: _loader(sizes, shape, view_bounds(MOST), _MICROBATCH),
        }
        views, seconds = _in_turn(training, loaders)
        print(f"{name}: {np.mean(sizes):.1f} images per patient, {np.mean(sizes) * _EXPECTED:.0f} expected in a step")
        for one in (_ONE, _WHOLE):
            ratios = [a / b for a, b in zip(seconds[one], seconds[_SEVERAL], strict=True)]
            print(f"  {one} / {_SEVERAL}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        for unit, found in (("views", views), ("s", seconds)):
            results += [
                measurement(f"views-{name}", variant, unit, values, more_is_better=False)
                for variant, values in found.items()
            ]
    return results


def _in_turn(training: Training, loaders: dict[str, Loader]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Views and seconds of each variant's steps."""
    views: dict[str, list[float]] = {variant: [] for variant in loaders}
    seconds: dict[str, list[float]] = {variant: [] for variant in loaders}
    sampler = PoissonSampler(_PATIENTS, _EXPECTED / _PATIENTS, "seeded", seed=1)
    for loader in loaders.values():
        _seconds(training, list(loader.padding()), 0)  # compiles every shape
    for number in range(1, 2 + int(os.environ.get("BENCH_ROUNDS", "5"))):
        batch = sampler.draw(number)
        for variant, loader in loaders.items():
            microbatches = list(loader.load(batch))
            taken = _seconds(training, microbatches, number)
            if number > 1:  # the first one warms up
                seconds[variant].append(taken)
                views[variant].append(sum(records.weights.size for records in microbatches))
    return views, seconds


def _seconds(training: Training, microbatches: list[Records], number: int) -> float:
    begun = time.perf_counter()
    wait_for(accumulate(training.step, training.state, iter(microbatches), number))
    return time.perf_counter() - begun


def _spreads() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "uniform": rng.integers(1, MOST + 1, _PATIENTS),
        "geometric": np.minimum(rng.geometric(0.25, _PATIENTS), MOST),
        "mostly-one": np.where(rng.random(_PATIENTS) < 0.9, 1, rng.integers(1, MOST + 1, _PATIENTS)),
    }


def _loader(sizes: np.ndarray, shape: tuple[int, ...], views: tuple[int, ...], microbatch: int) -> Loader:
    total, rng = int(sizes.sum()), np.random.default_rng(1)
    labels = rng.integers(0, CLASSES, total).astype(np.int32)
    groups = tuple(str(number) for number in range(total))
    info = partial(Info, name="made", task="classification", scale=255.0, unit="patient")
    dataset = ArrayDataset(
        info(
            input_shape=shape,
            class_names=tuple(map(str, range(CLASSES))),
            mean=(0.5,) * shape[-1],
            std=(0.25,) * shape[-1],
        ),
        Listing(labels=labels, groups=groups),
        inputs=rng.integers(0, 256, (total, *shape), dtype=np.uint8),
        targets=labels,
    )
    ends = np.cumsum(sizes)
    members = [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    return Loader(dataset, members, microbatch=microbatch, views=views)
