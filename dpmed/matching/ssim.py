"""Structural similarity of every pair of images, in blocks that fit into memory.

The means and variances of an image are filtered once; only the covariance needs a filter for each pair. The Gaussian
window is separable, so each pass is a product with a banded matrix, the fastest way to compute it.

Sources: Wang, Bovik, Sheikh and Simoncelli (2004); Wang, Simoncelli and Bovik (2003) for several scales.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

WINDOW = 11
_SIGMA = 1.5
_C1 = 0.01**2  # for values in [0, 1]
_C2 = 0.03**2
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. (2003), section 3.2

# Pairs in one pass: their filtered covariances should stay in the processor's cache.
_CACHE_VALUES = 1 << 17
_BLOCK_VALUES = 1 << 25
# Half-black, half-white pictures have 277 here and an error of 9e-5 in float32; the error grows with this number.
_FRAIL = 12.0

# Outputs per banded block: beyond about 80, the zeros of one whole matrix cost more than several blocks.
_BAND = 36
_WHOLE_BAND = 80


def window_that_fits(space: tuple[int, ...]) -> int:
    """The side of the window: 11, or the largest odd number that fits the image's shortest side."""
    shortest = min(space)
    return min(WINDOW, shortest if shortest % 2 else shortest - 1)


def scales_that_fit(space: tuple[int, ...]) -> int:
    """How often an image can be halved and still hold a window of 11, plus one; at most five, at least one."""
    return max(1, sum(min(space) >> halvings >= WINDOW for halvings in range(len(_SCALE_WEIGHTS))))


def pairwise_ssim(
    originals: Float[np.ndarray, "n *space channel"],
    reconstructions: Float[np.ndarray, "m *space channel"],
    *,
    by_slice: bool = False,
) -> Float[np.ndarray, "n m"]:
    """One minus the structural similarity of every pair.

    Gaussian window of side 11 and standard deviation 1.5 (the largest odd side that fits smaller images), population
    covariance, without borders where the window does not fit, mean over channels: as computed by scikit-image with
    `gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1`.

    Args:
        originals: values in [0, 1], two or three spatial axes.
        reconstructions: values in [0, 1].
        by_slice: for volumes, average over slices along the last spatial axis instead of using a 3D window.

    Returns:
        1 - SSIM, in [0, 2], smaller for more similar images.
    """
    x, y = _to_planes(originals, by_slice), _to_planes(reconstructions, by_slice)
    similarity = np.mean([_pairs(x[plane], y[plane], whole=True)[0] for plane in range(len(x))], axis=0)
    # Rounding can give equal images a similarity of 1 + 1e-7.
    return np.maximum(1.0 - similarity, 0.0)


def pairwise_ms_ssim(
    originals: Float[np.ndarray, "n *space channel"],
    reconstructions: Float[np.ndarray, "m *space channel"],
    *,
    by_slice: bool = False,
) -> Float[np.ndarray, "n m"]:
    """One minus the multi-scale structural similarity of every pair.

    Contrast and structure at each scale and luminance at the coarsest; images are halved by averaging 2 × 2 pixels in
    between. Images too small for five scales use as many as can hold a window of 11, with the weights scaled to sum to
    one. A negative mean of contrast and structure counts as 0.

    Args:
        originals: values in [0, 1], two or three spatial axes.
        reconstructions: values in [0, 1].
        by_slice: for volumes, average over slices along the last spatial axis.

    Returns:
        1 - MS-SSIM, in [0, 1], smaller for more similar images.
    """
    x, y = _to_planes(originals, by_slice), _to_planes(reconstructions, by_slice)
    scales = scales_that_fit(x[0].shape[1:])
    weights = np.array(_SCALE_WEIGHTS[:scales]) / sum(_SCALE_WEIGHTS[:scales])
    total = np.zeros((len(originals), len(reconstructions)))
    for plane in range(len(x)):
        a, b = x[plane], y[plane]
        product = np.ones_like(total)
        for scale, weight in enumerate(weights):
            similarity, contrast = _pairs(a, b, whole=False)
            product *= np.maximum(similarity if scale == scales - 1 else contrast, 0.0) ** weight
            if scale < scales - 1:
                a, b = _halve(a), _halve(b)
        total += product
    return np.maximum(1.0 - total / len(x), 0.0)


@dataclass(frozen=True)
class _Moments:
    """Images minus their mean, that mean, and windowed means and variances of the remainder."""

    centred: Array
    offset: Array
    mean: Array
    variance: Array


jax.tree_util.register_dataclass(_Moments)


def _to_planes(images: Float[np.ndarray, "n *space channel"], by_slice: bool) -> Float[np.ndarray, "plane n *sides"]:
    if images.ndim not in {4, 5}:
        raise ValueError(f"Expected two or three axes of space, got {images.shape=}.")
    planes = np.moveaxis(images, -1, 0)
    if by_slice and images.ndim == 5:  # noqa: PLR2004 a volume: slices become planes like channels
        planes = np.moveaxis(planes, -1, 1).reshape(-1, *images.shape[:3])
    return planes


def _halve(images: Float[np.ndarray, " n *space"]) -> Float[np.ndarray, " n *half"]:
    for axis in range(1, images.ndim):
        even = images.shape[axis] // 2 * 2
        first = np.take(images, range(0, even, 2), axis)
        images = (first + np.take(images, range(1, even, 2), axis)) / 2
    return images


def _pairs(
    x: Float[np.ndarray, " n *space"], y: Float[np.ndarray, " m *space"], *, whole: bool
) -> Float[np.ndarray, "2 n m"]:
    """Mean similarity of all pairs, and mean contrast and structure (zeros if only `whole` is requested)."""
    result = np.zeros((2, len(x), len(y)))
    frail_x, frail_y = _are_frail(x), _are_frail(y)
    rest, steady = np.flatnonzero(~frail_x), np.flatnonzero(~frail_y)
    result[:, rest[:, None], steady] = _blockwise(x[rest], y[steady], whole, jnp.float32)
    # Uniform regions far from the image's mean need more digits than float32 has, and take two to three times as long.
    with jax.enable_x64(True):
        result[:, frail_x] = _blockwise(x[frail_x], y, whole, jnp.float64)
        hard = np.flatnonzero(frail_y)
        result[:, rest[:, None], hard] = _blockwise(x[rest], y[hard], whole, jnp.float64)
    return result


def _blockwise(
    x: Float[np.ndarray, " n *space"], y: Float[np.ndarray, " m *space"], whole: bool, dtype: Any
) -> Float[np.ndarray, "2 n m"]:
    result = np.zeros((2, len(x), len(y)))
    if not result.size:
        return result
    size = int(np.prod(x.shape[1:]))
    columns = max(1, min(len(y), _CACHE_VALUES // size))
    rows = max(1, min(len(x), _BLOCK_VALUES // size))
    for first in range(0, len(x), rows):
        one = _moments(jnp.asarray(np.expand_dims(x[first : first + rows], -2), dtype))
        for begin, block in _blocks(y, columns):
            # The block's images are adjacent before the last spatial axis, so that both passes are flat products.
            other = _moments(jnp.moveaxis(jnp.asarray(block, dtype), 0, -2)[None])
            found = np.asarray(_compare(one, other, whole), np.float64)
            end = min(begin + columns, len(y))
            result[:, first : first + rows, begin:end] = found[:, :, : end - begin].transpose(1, 0, 2)
    return result


def _are_frail(images: Float[np.ndarray, " n *space"]) -> Bool[np.ndarray, " n"]:
    """Images whose similarity may be off by more than about 1e-6 in float32, because of cancellation."""
    rows = max(1, _BLOCK_VALUES // int(np.prod(images.shape[1:])))
    found = [
        np.asarray(_frailty(jnp.asarray(np.expand_dims(images[first : first + rows], -2), jnp.float32)))
        for first in range(0, len(images), rows)
    ]
    return np.concatenate([*found, np.zeros(0, np.float32)]) > _FRAIL


@jax.jit
def _frailty(images: Float[Array, "n *before one side"]) -> Float[Array, " n"]:
    moments = _moments(images)
    return jnp.mean(moments.mean * moments.mean / (moments.variance + _C2), tuple(range(1, images.ndim)))


def _blocks(y: Float[np.ndarray, " m *space"], columns: int) -> Iterator[tuple[int, np.ndarray]]:
    """Equal blocks, the last padded with black images, so that one compiled function serves all."""
    for begin in range(0, len(y), columns):
        block = y[begin : begin + columns]
        missing = columns - len(block)
        yield begin, np.pad(block, [(0, missing)] + [(0, 0)] * (y.ndim - 1)) if missing else block


@jax.jit
def _moments(images: Float[Array, "n *before block side"]) -> _Moments:
    # Variances are differences of squares, which lose least in float32 if centred on the image's own mean.
    axes = tuple(axis for axis in range(1, images.ndim) if axis != images.ndim - 2)
    offset = jnp.mean(images, axes, keepdims=True)
    centred = images - offset
    mean = jax.lax.map(_blur, centred)
    return _Moments(centred, offset, mean, jax.lax.map(_blur, centred * centred) - mean * mean)


@partial(jax.jit, static_argnums=2)
def _compare(one: _Moments, other: _Moments, whole: bool) -> Float[Array, "n 2 block"]:
    other = jax.tree.map(lambda leaf: leaf[0], other)
    axes = tuple(axis for axis in range(other.mean.ndim) if axis != other.mean.ndim - 2)

    def compare(x: _Moments) -> Float[Array, "2 block"]:
        covariance = _blur(x.centred * other.centred) - x.mean * other.mean
        mean_x, mean_y = x.mean + x.offset, other.mean + other.offset
        products, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
        above, below = 2 * covariance + _C2, x.variance + other.variance + _C2
        similarity = jnp.mean((2 * products + _C1) * above / ((squares + _C1) * below), axes)
        contrast = jnp.zeros_like(similarity) if whole else jnp.mean(above / below, axes)
        return jnp.stack([similarity, contrast])

    return jax.lax.map(compare, one)


def _blur(images: Float[Array, "*before block side"]) -> Float[Array, "*smaller block shorter"]:
    """Gaussian window, only where it fits completely, along all axes except the second to last."""
    space = (*images.shape[:-2], images.shape[-1])
    window = window_that_fits(space)
    flat = images.reshape(-1, images.shape[-1])
    result = _band(flat.T, window).T.reshape(*images.shape[:-1], -1)
    for axis in range(len(space) - 1):
        ahead = jnp.moveaxis(result, axis, 0)
        shorter = _band(ahead.reshape(ahead.shape[0], -1), window)
        result = jnp.moveaxis(shorter.reshape(-1, *ahead.shape[1:]), 0, axis)
    return result


def _band(values: Float[Array, "side rest"], window: int) -> Float[Array, "shorter rest"]:
    """The window along the first axis, as a banded matrix in blocks."""
    outputs = values.shape[0] - window + 1
    step = outputs if outputs <= _WHOLE_BAND else _BAND
    matrix = jnp.asarray(_banded(step, window), values.dtype)
    cuts = [(first, min(step, outputs - first)) for first in range(0, outputs, step)]
    pieces = [
        matrix[:count, : count + window - 1] @ values[first : first + count + window - 1] for first, count in cuts
    ]
    return pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces)


def _banded(rows: int, window: int) -> Float[np.ndarray, "rows side"]:
    places = np.arange(window) - window // 2
    weights = np.exp(-0.5 * (places / _SIGMA) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((rows, rows + window - 1))
    for row in range(rows):
        matrix[row, row : row + window] = weights
    return matrix
