"""Patients of different numbers of images: views computed, and processor seconds, of a private step.

Each of 400 patients has 1 to 30 images; 64 are expected in a step. Padded to the public bound of 30 views, as all once
were, beside padded to 1, 2, 8 or 30 as they are. Of the same batches, a step of each in turn. Processor seconds are of
all threads, so that other work on the machine hardly changes them.
"""

import os
import time
from functools import partial
from typing import Any

import jax
import numpy as np

from dpmed.data.base import Info
from dpmed.data.loader import Loader, view_bounds
from dpmed.data.storage.stored import ArrayDataset, Listing
from dpmed.dpsgd.sampling import PoissonSampler
from dpmed.training.loop import accumulate
from tests.benchmarks.record import measurement
from tests.benchmarks.step_cases import CLASSES, trainings

CASE = "small_cnn-32x32x3-b32"
MOST, _PATIENTS, _EXPECTED, _MICROBATCH = 30, 400, 64, 8


def run() -> list[dict[str, Any]]:
    """Views and processor seconds by how images are spread over patients, and by how records are padded."""
    training = trainings(CASE)["private"]
    shape = training.records["inputs"].shape[2:]
    results = []
    for name, sizes in _spreads().items():
        loaders = {
            "padded to 30": _loader(sizes, shape, (MOST,)),
            "padded to 1, 2, 8 or 30": _loader(sizes, shape, view_bounds(MOST)),
        }
        found: dict[str, dict[str, list[float]]] = {variant: {"views": [], "cpu s": []} for variant in loaders}
        batches = PoissonSampler(_PATIENTS, _EXPECTED / _PATIENTS, "seeded", seed=1)
        for number in range(1 + int(os.environ.get("BENCH_ROUNDS", "3"))):
            drawn = batches.draw(number)
            for variant, loader in loaders.items():
                microbatches = list(loader.load(drawn))
                begun = time.process_time()
                jax.block_until_ready(accumulate(training.step, training.state, iter(microbatches), number))
                if number:  # the first compiles
                    found[variant]["cpu s"].append(time.process_time() - begun)
                    found[variant]["views"].append(sum(records.weights.size for records in microbatches))
        real = float(np.mean(sizes)) * _EXPECTED
        print(f"{name}: {np.mean(sizes):.1f} images per patient, {real:.0f} expected in a step", flush=True)
        results += [
            measurement(f"views-{name}", variant, unit, values, more_is_better=False)
            for variant, kinds in found.items()
            for unit, values in kinds.items()
        ]
    return results


def _spreads() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "uniform": rng.integers(1, MOST + 1, _PATIENTS),
        "geometric": np.minimum(rng.geometric(0.25, _PATIENTS), MOST),
        "mostly-one": np.where(rng.random(_PATIENTS) < 0.9, 1, rng.integers(1, MOST + 1, _PATIENTS)),
    }


def _loader(sizes: np.ndarray, shape: tuple[int, ...], views: tuple[int, ...]) -> Loader:
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
    return Loader(dataset, members, microbatch=_MICROBATCH, views=views)
