"""Clip each record's gradient and sum: the one place where sensitivity is made.

Nothing that a record's gradient holds can move the sum by more than the clipping norm: not its size, not infinity, not
NaN. The result carries its sensitivity, so that nobody retypes it elsewhere.
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

# Norm and sum are rounded apart: a gradient scaled to norm C in float32 can end a few ulps above C. Scaling to
# C / (1 + MARGIN) leaves room for that rounding, so that the sensitivity stays C itself.
MARGIN = 1e-5

# Gradients are scaled by a unit within these limits: a device that flushes denormal numbers to zero would otherwise
# divide by zero, or by a number whose reciprocal is zero.
_SMALLEST_UNIT, _LARGEST_UNIT = 1e-30, 1e37


@dataclass(frozen=True)
class FlatClipping:
    """One bound for the whole gradient (Abadi et al., 2016).

    Attributes:
        clipping_norm: C > 0, in the gradient's own unit.
    """

    clipping_norm: float

    def __post_init__(self) -> None:
        if not 0.0 < self.clipping_norm < float("inf"):
            raise ValueError(f"Expected finite {self.clipping_norm=} > 0.")


class ClippedSum(eqx.Module):
    """A sum of clipped gradients.

    Attributes:
        gradients: the sum, float32.
        sensitivity: adding or removing one record moves `gradients` by at most this in L2 norm.
        rejected: how many records counted as zero because their gradient was not finite.
        clipped: how many records were scaled down.
    """

    gradients: PyTree[Float[Array, "..."]]
    rejected: Int[Array, ""]
    clipped: Int[Array, ""]
    sensitivity: float = eqx.field(static=True)


def clip_and_sum(
    gradients: PyTree[Float[Array, "batch ..."]], mask: Bool[Array, " batch"], *, clipping: FlatClipping
) -> ClippedSum:
    """Sum per-record gradients, each scaled to an L2 norm of at most the clipping norm.

    Guarantee: adding or removing one record moves the sum by at most `clipping.clipping_norm` in L2 norm, whatever the
    gradients are; a non-finite gradient counts as zero and is counted in `rejected`.

    Args:
        gradients: one gradient per record, the same leading axis in every leaf.
        mask: true for real records; padding contributes exactly zero.
        clipping: the bound.

    Returns:
        The sum with its sensitivity.

    Source: Abadi et al. (2016), Algorithm 1; sensitivity for add-or-remove-one adjacency.
    """
    # Scaled by the largest entry first, the sum of squares neither overflows for huge gradients nor vanishes for tiny
    # ones. The largest entry also tells whether all are finite, since max passes NaN on.
    largest = _largest(gradients)
    finite = jnp.isfinite(largest)
    keep = mask & finite
    unit = jnp.where(keep & (largest > _SMALLEST_UNIT), jnp.minimum(largest, _LARGEST_UNIT), jnp.ones_like(largest))
    scaled = jax.tree.map(lambda leaf: _rows(keep, leaf, leaf / _column(unit, leaf), jnp.zeros_like(leaf)), gradients)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf.reshape(len(leaf), -1)), axis=1) for leaf in jax.tree.leaves(scaled)))
    bound = jnp.float32(clipping.clipping_norm / (1.0 + MARGIN))
    # unit·norm may overflow to infinity, which is above any bound, as it should be.
    too_long = unit * norm > bound
    factor = jnp.where(too_long, bound / jnp.where(norm > 0, norm, jnp.ones_like(norm)), unit)
    total = jax.tree.map(lambda leaf: jnp.tensordot(factor, leaf, axes=1, precision="highest"), scaled)
    return ClippedSum(
        gradients=total,
        rejected=jnp.sum(mask & ~finite, dtype=jnp.int32),
        clipped=jnp.sum(keep & too_long, dtype=jnp.int32),
        sensitivity=clipping.clipping_norm,
    )


def _largest(gradients: PyTree[Float[Array, "batch ..."]]) -> Float[Array, " batch"]:
    per_leaf = [jnp.max(jnp.abs(leaf.reshape(len(leaf), -1)), axis=1) for leaf in jax.tree.leaves(gradients)]
    largest = per_leaf[0]
    for other in per_leaf[1:]:
        largest = jnp.maximum(largest, other)
    return largest


def _column(values: Float[Array, " batch"], like: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    return values.reshape(-1, *([1] * (like.ndim - 1)))


def _rows(
    keep: Bool[Array, " batch"], like: Float[Array, "batch ..."], yes: Float[Array, "..."], no: Float[Array, "..."]
) -> Float[Array, "batch ..."]:
    return jnp.where(keep.reshape(-1, *([1] * (like.ndim - 1))), yes, no)
