"""Distances between pixel values: mean squared error and peak signal-to-noise ratio of every pair of images."""

import numpy as np
from jaxtyping import Float

# Below this the ratio is meaningless: images rounded to 8 bits that differ at all are far above it.
_LEAST_ERROR = 1e-10
_BLOCK_BYTES = 1 << 27


def pairwise_mse(
    originals: Float[np.ndarray, " n *shape"], reconstructions: Float[np.ndarray, " m *shape"]
) -> Float[np.ndarray, "n m"]:
    """Mean squared error of every pair.

    Args:
        originals: values of any range.
        reconstructions: in the same range.

    Returns:
        Distances in float64, 0 for equal images.
    """
    # |x - y|² = |x|² + |y|² - 2 x·y turns all pairs into one matrix product. In float64 the cancellation error is below
    # 1e-15 of the norms, far below the difference between two 8-bit images.
    size = int(np.prod(originals.shape[1:]))
    rows = max(1, _BLOCK_BYTES // (8 * size))
    result = np.empty((len(originals), len(reconstructions)), np.float64)
    for first in range(0, len(originals), rows):
        x = originals[first : first + rows].reshape(-1, size).astype(np.float64)
        for begin in range(0, len(reconstructions), rows):
            y = reconstructions[begin : begin + rows].reshape(-1, size).astype(np.float64)
            squares = (x * x).sum(1)[:, None] + (y * y).sum(1)[None, :] - 2.0 * (x @ y.T)
            result[first : first + rows, begin : begin + rows] = np.maximum(squares, 0.0) / size
    return result


def pairwise_psnr(
    originals: Float[np.ndarray, " n *shape"], reconstructions: Float[np.ndarray, " m *shape"]
) -> Float[np.ndarray, "n m"]:
    """Peak signal-to-noise ratio of every pair as a distance: decibels with the opposite sign.

    Args:
        originals: values in [0, 1].
        reconstructions: values in [0, 1].

    Returns:
        -PSNR, smaller for more similar images; -100 for equal ones, whose ratio is infinite.
    """
    return 10.0 * np.log10(np.maximum(pairwise_mse(originals, reconstructions), _LEAST_ERROR))
