"""Clip each record's gradient and sum: the one place where sensitivity is made.

Nothing that a record's gradient holds can move the sum by more than the clipping norm: not its size, not infinity, not
NaN. The result carries its sensitivity, so that nobody retypes it elsewhere.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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


# Squares of entries under 1e-19 vanish in float32. What a norm misses by that stays far below a bound of this size; a
# smaller bound could be passed unseen, so it is refused.
_SMALLEST_NORM = 1e-5


@runtime_checkable
class Clipping(Protocol):
    """A way of bounding what one record can do."""

    @property
    def sensitivity(self) -> float:
        """Adding or removing one record moves the sum by at most this in L2 norm."""
        ...

    def factors(
        self, squares: Sequence[Float[Array, " batch"]]
    ) -> tuple[list[Float[Array, " batch"]], Bool[Array, " batch"]]:
        """What each record's gradient is multiplied by, leaf by leaf, and which records are scaled down."""
        ...


@dataclass(frozen=True)
class FlatClipping:
    """One bound for the whole gradient (Abadi et al., 2016).

    Attributes:
        clipping_norm: C >= 1e-5, in the gradient's own unit.
    """

    clipping_norm: float

    def __post_init__(self) -> None:
        _check_norm(self.clipping_norm)

    @property
    def sensitivity(self) -> float:
        """C: no record's gradient is longer after clipping."""
        return self.clipping_norm

    def factors(
        self, squares: Sequence[Float[Array, " batch"]]
    ) -> tuple[list[Float[Array, " batch"]], Bool[Array, " batch"]]:
        """min(1, C / norm) for all leaves."""
        factor, shortened = _bounded(_total(squares), self.clipping_norm)
        return [factor] * len(squares), shortened


@dataclass(frozen=True)
class PerLayerClipping:
    """The same bound for each of L leaves, C / sqrt(L), so that the whole gradient keeps to C.

    Attributes:
        clipping_norm: C >= 1e-5, of the whole gradient.

    Source: McMahan et al. (2018), "Learning differentially private recurrent language models", section 3.1.
    """

    clipping_norm: float

    def __post_init__(self) -> None:
        _check_norm(self.clipping_norm)

    @property
    def sensitivity(self) -> float:
        """C: the squares of L leaves of at most C² / L."""
        return self.clipping_norm

    def factors(
        self, squares: Sequence[Float[Array, " batch"]]
    ) -> tuple[list[Float[Array, " batch"]], Bool[Array, " batch"]]:
        """min(1, C / (sqrt(L) norm)) of each leaf; a record counts as scaled down if one of its leaves is."""
        bounded = [_bounded(square, self.clipping_norm / math.sqrt(len(squares))) for square in squares]
        shortened = jnp.any(jnp.stack([one for _, one in bounded]), axis=0)
        return [factor for factor, _ in bounded], shortened


@dataclass(frozen=True)
class AutomaticClipping:
    """Each gradient normalised, whatever its length: C g / (‖g‖ + γ).

    Attributes:
        clipping_norm: C >= 1e-5: what the normalised gradients' norms stay below.
        stability: γ > 0, in the gradient's own unit; keeps short gradients short.

    Source: Bu et al. (2023), "Automatic clipping: differentially private deep learning made easier and stronger".
    """

    clipping_norm: float
    stability: float = 0.01

    def __post_init__(self) -> None:
        _check_norm(self.clipping_norm)
        if not _SMALLEST_NORM <= self.stability < float("inf"):
            raise ValueError(f"Expected finite {self.stability=} >= {_SMALLEST_NORM}.")

    @property
    def sensitivity(self) -> float:
        """C, which no normalised gradient reaches."""
        return self.clipping_norm

    def factors(
        self, squares: Sequence[Float[Array, " batch"]]
    ) -> tuple[list[Float[Array, " batch"]], Bool[Array, " batch"]]:
        """C / (norm + γ) for all leaves."""
        norm = jnp.sqrt(_total(squares))
        factor = jnp.float32(self.clipping_norm / (1.0 + MARGIN)) / (norm + jnp.float32(self.stability))
        return [factor] * len(squares), factor < 1


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


def _check_norm(clipping_norm: float) -> None:
    if not _SMALLEST_NORM <= clipping_norm < float("inf"):
        raise ValueError(f"Expected finite {clipping_norm=} >= {_SMALLEST_NORM}.")


def _total(squares: Sequence[Float[Array, " batch"]]) -> Float[Array, " batch"]:
    return jnp.sum(jnp.stack(list(squares)), axis=0)


def _bounded(
    square: Float[Array, " batch"], clipping_norm: float
) -> tuple[Float[Array, " batch"], Bool[Array, " batch"]]:
    bound = jnp.float32(clipping_norm / (1.0 + MARGIN))
    norm = jnp.sqrt(square)
    too_long = norm > bound
    return jnp.where(too_long, bound / jnp.where(too_long, norm, bound), jnp.ones_like(norm)), too_long


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
