"""Volumes larger than a network's input: overlapping windows, averaged with Gaussian weights (Isensee et al., 2021)."""

import itertools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Shaped

Corner = tuple[int, int, int]
# As a fraction of a window's side; windows overlap by half.
_SIGMA = 1 / 8
_SMALLEST_WEIGHT = 1e-3


def corners(space: tuple[int, ...], window: tuple[int, ...]) -> list[Corner]:
    """The start positions of windows: evenly spaced, at most half a window apart, covering the whole volume.

    Args:
        space: sides of the volume, each at least that of the window.
        window: sides of a window.
    """
    starts = []
    for side, wide in zip(space, window, strict=True):
        if side < wide:
            raise ValueError(f"Expected {space=} to hold {window=}.")
        count = 1 + -(-(side - wide) // max(1, wide // 2))
        starts.append(np.linspace(0, side - wide, count).round().astype(int).tolist())
    return list(itertools.product(*starts))


def gaussian_weights(window: tuple[int, ...]) -> Float[np.ndarray, "x y z 1"]:
    """Weights of a window's voxels: largest at its centre, where a network has most context, and never zero."""
    profiles = []
    for side in window:
        distance = (np.arange(side) - (side - 1) / 2) / (_SIGMA * side)
        profiles.append(np.exp(-0.5 * distance**2))
    weights = np.einsum("i,j,k->ijk", *profiles)
    return np.maximum(weights, _SMALLEST_WEIGHT).astype(np.float32)[..., None]


def predict_windows(
    values: Shaped[np.ndarray, "x y z channel"],
    window: tuple[int, ...],
    predict: Callable[[Shaped[np.ndarray, "sample a b c channel"]], Float[np.ndarray, "sample a b c answer"]],
    *,
    batch_size: int,
) -> Float[np.ndarray, "x y z answer"]:
    """The weighted mean of `predict` over overlapping windows.

    Args:
        values: a volume whose sides are at least those of the window.
        window: sides of the network's input.
        predict: gives probabilities of windows.
        batch_size: number of windows processed at once.
    """
    weights = gaussian_weights(window)
    places = corners(values.shape[:3], window)
    total: Float[np.ndarray, "x y z answer"] | None = None
    norm = np.zeros((*values.shape[:3], 1), np.float32)
    for first in range(0, len(places), batch_size):
        boxes = [_box(place, window) for place in places[first : first + batch_size]]
        answers = predict(np.stack([values[box] for box in boxes]))
        if total is None:
            total = np.zeros((*values.shape[:3], answers.shape[-1]), np.float32)
        for box, answer in zip(boxes, answers, strict=True):
            total[box] += weights * answer
            norm[box] += weights
    assert total is not None  # noqa: S101 there is a window at least
    return total / norm


def _box(corner: Corner, window: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(first, first + side) for first, side in zip(corner, window, strict=True))
