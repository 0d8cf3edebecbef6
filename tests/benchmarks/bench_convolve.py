"""Convolutions of side 3 by XLA and by `dpmed.models.kernels.winograd`, in turn: forward and both gradients.

What is found here are the limits in `dpmed.models.kernels.winograd` from which on the fast way is chosen.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from dpmed.models.kernels import winograd
from dpmed.models.kernels.direct import patches
from dpmed.runtime.jit import Compiled
from tests.benchmarks.record import measurement

# Batch, height, width, channels in and out: layers of ResNet-9 at 32 x 32 and at 224 x 224, and narrow or small ones.
SHAPES = (
    (32, 32, 32, 32, 32),
    (32, 32, 32, 48, 48),
    (32, 32, 32, 64, 128),
    (32, 16, 16, 128, 256),
    (32, 8, 8, 256, 256),
    (32, 4, 4, 256, 256),
    (4, 112, 112, 128, 128),
)


def run() -> list[dict[str, Any]]:
    """Milliseconds of each way by shape."""
    results = []
    for shape in SHAPES:
        case = "x".join(map(str, shape))
        calls = _calls(shape)
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(_rounds() + 1):
            for name, call in calls.items():
                begun = time.perf_counter()
                jax.block_until_ready(call())
                if turn:  # the first compiles
                    taken[name].append(1e3 * (time.perf_counter() - begun))
        results += [measurement(case, name, "ms", times, more_is_better=False) for name, times in taken.items()]
    return results


def _calls(shape: tuple[int, ...]) -> dict[str, Callable[[], object]]:
    *space, channels_in, channels_out = shape
    rng = np.random.default_rng(0)
    sizes = ((*space, channels_in), (3, 3, channels_in, channels_out), (*space, channels_out))
    x, weight, gradient = (jax.numpy.asarray(rng.normal(size=size), jax.numpy.float32) for size in sizes)
    return {
        "forward, XLA": partial(Compiled(winograd._by_xla), x, weight),
        "forward, Winograd": partial(Compiled(partial(winograd._convolved, mirrored=False)), x, weight),
        "gradients of records' filters, XLA": partial(Compiled(jax.vmap(_filter_gradient)), x, gradient),
        "gradients of records' filters, Winograd": partial(Compiled(_filter_gradients), x, gradient),
    }


def _rounds() -> int:
    return int(os.environ.get("BENCH_ROUNDS", "5"))


def _filter_gradient(image: Any, gradient: Any) -> Any:
    """By a matrix product with patches, as for all other convolutions."""
    columns = patches(image[None], (3, 3), 1, gradient.shape[:-1]).reshape(-1, 9 * image.shape[-1])
    return columns.T @ gradient.reshape(-1, gradient.shape[-1])


def _filter_gradients(images: Any, gradient: Any) -> Any:
    return winograd.filter_gradients(images[:, None], gradient[:, None])
