"""Products of rows with a narrow matrix, in which every row is rounded alike.

XLA's CPU compiler computes products with a single column, and sums of two terms, in tiles of rows; what is left over at
the end is computed by other code and rounded differently. A record's gradient would depend on its place in the
microbatch, hence on who else was drawn. So rows are padded to whole tiles. Wider products go to a matrix library, which
rounds all rows alike.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from dpmed.layer_tags import is_plain
from dpmed.models.kernels.bilinear import convolution_primitive

# With up to so many inputs or outputs, rows are padded, since the way back multiplies with as many.
_NARROW = 2
# A multiple of any tile: eight rows, or four vectors of sixteen numbers.
_TILE = 64


def is_narrow(weight: Sequence[int], stride: int = 1) -> bool:
    """Whether filters of this shape, `(*kernel, inputs, outputs)`, are matrices for which rows must be padded."""
    *kernel, inputs, outputs = weight
    return stride == 1 and all(side == 1 for side in kernel) and min(inputs, outputs) <= _NARROW


def multiply_rows(
    rows: Float[Array, "*positions inputs"], weight: Float[Array, "*ones inputs outputs"]
) -> Float[Array, "*positions outputs"]:
    """The product of each row with the matrix; under `vmap`, rows of all images are multiplied at once."""
    matrix = weight.reshape(weight.shape[-2:])
    if is_plain():
        return rows @ matrix
    flat = rows.reshape(-1, rows.shape[-1])
    found: Array = _multiply_rows_p.bind(flat, matrix, mirrored=False)
    return found.reshape(*rows.shape[:-1], -1)


def in_whole_tiles(
    rows: Float[Array, "rows inputs"], weight: Float[Array, "inputs outputs"]
) -> Float[Array, "rows outputs"]:
    """The product, by one of XLA's, of rows that are padded if the matrix is narrow."""
    if not is_narrow(weight.shape):
        return rows @ weight
    left = -len(rows) % _TILE
    return (jnp.pad(rows, ((0, left), (0, 0))) @ weight)[: len(rows)]


def _multiplied(images: Array, weight: Array, *, mirrored: bool) -> Array:
    return in_whole_tiles(images, weight.T if mirrored else weight)


def _summed(images: Array, gradient: Array) -> Array:
    return images.T @ gradient


_multiply_rows_p = convolution_primitive("multiply_rows", _multiplied, _summed)
