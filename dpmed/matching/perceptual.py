"""A perceptual distance without trained weights, based on how unevenly edges differ.

Source: Xue, Zhang, Mou and Bovik (2014), "Gradient magnitude similarity deviation", IEEE Transactions on Image
Processing 23(2).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_C = 170.0 / 255.0**2  # the paper's constant, for values in [0, 1] rather than [0, 255]
_CACHE_VALUES = 1 << 18


def pairwise_gmsd(
    originals: Float[np.ndarray, "n *space channel"], reconstructions: Float[np.ndarray, "m *space channel"]
) -> Float[np.ndarray, "n m"]:
    """Gradient magnitude similarity deviation of every pair.

    As in the paper, images are averaged over 2 × 2 pixels and halved (a last odd row or column is dropped), and
    gradients are computed by Prewitt filters with zero padding. Colour is converted to luma; for volumes, the result is
    the mean over slices along the last spatial axis.

    Args:
        originals: values in [0, 1]; at least 2 pixels a side.
        reconstructions: values in [0, 1].

    Returns:
        Distances, 0 for equal images; above 0.3, images have little in common.
    """
    x, y = _to_slices(originals), _to_slices(reconstructions)
    block = max(1, _CACHE_VALUES // max(1, x[0, 0].size // 4))
    total = np.zeros((len(originals), len(reconstructions)))
    for plane in range(x.shape[1]):
        edges = _edges(jnp.asarray(x[:, plane], jnp.float32))
        for begin in range(0, len(y), block):
            others = _edges(jnp.asarray(y[begin : begin + block, plane], jnp.float32))
            total[:, begin : begin + block] += np.asarray(_deviations(edges, others))
    return total / x.shape[1]


def _to_slices(images: Float[np.ndarray, "n *space channel"]) -> Float[np.ndarray, "n slice height width"]:
    channels = images.shape[-1]
    grey = images @ np.asarray(_LUMA, images.dtype) if channels == len(_LUMA) else images.mean(-1)
    return grey[:, None] if grey.ndim == 3 else np.moveaxis(grey, -1, 1)  # noqa: PLR2004 one picture, or slices


@jax.jit
def _edges(images: Float[Array, "n height width"]) -> Float[Array, "n half_height half_width"]:
    height, width = (side // 2 * 2 for side in images.shape[1:])
    halved = images[:, :height, :width].reshape(len(images), height // 2, 2, width // 2, 2).mean((2, 4))
    padded = jnp.pad(halved, ((0, 0), (1, 1), (1, 1)))
    columns = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    rows = padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]
    across = (columns[:, :, 2:] - columns[:, :, :-2]) / 3
    down = (rows[:, 2:] - rows[:, :-2]) / 3
    return jnp.sqrt(across * across + down * down)


@jax.jit
def _deviations(x: Float[Array, "n height width"], y: Float[Array, "m height width"]) -> Float[Array, "n m"]:
    def compare(one: Float[Array, "height width"]) -> Float[Array, " m"]:
        alike = (2 * one[None] * y + _C) / ((one * one)[None] + y * y + _C)
        return jnp.std(alike, (1, 2))

    return jax.lax.map(compare, x)
