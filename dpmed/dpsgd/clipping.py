"""Clip each record's gradient and sum: the one place where sensitivity is made.

Nothing that a record's gradient holds can move the sum by more than the clipping norm: not its size, not infinity, not
NaN. The result carries its sensitivity, so that nobody retypes it elsewhere.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from dpmed.dpsgd.noise import shaped_like

# Norm and sum are rounded apart: a gradient scaled to norm C in float32 can end a few ulps above C. Scaling to
# C / (1 + MARGIN) leaves room for that rounding, so that the sensitivity stays C itself.
MARGIN = 1e-5

# Gradients are scaled by a unit within these limits: a device that flushes denormal numbers to zero would otherwise
# divide by zero, or by a number whose reciprocal is zero.
_SMALLEST_UNIT, _LARGEST_UNIT = 1e-30, 1e37

# Squares of entries under 1e-19 vanish in float32. What a norm misses by that stays far below a bound of this size; a
# smaller bound could be passed unseen, so it is refused.
_SMALLEST_NORM = 1e-5
# Where a bound moves or a gradient is divided by its norm, factors stay far from the ends of float32.
LARGEST_NORM = 1e6


@runtime_checkable
class Clipping(Protocol):
    """A way of bounding what one record can do.

    Where the clipping norm C moves from step to step, `norm` is its value at this step, `()` float32, and belongs to
    the step's state; where C is constant, `norm` is None throughout.
    """

    @property
    def clipping_norm(self) -> float:
        """C of the first step."""
        ...

    def begin(self) -> Float[Array, ""] | None:
        """C of the first step as the step's state has it."""
        ...

    def sensitivity(self, norm: Float[Array, ""] | None) -> Float[Array, ""] | float:
        """Adding or removing one record moves the sum by at most this in L2 norm."""
        ...

    def gradient_noise(self, noise_multiplier: float) -> float:
        """The noise multiplier of the sum with which all that a step releases costs what `noise_multiplier` costs."""
        ...

    def factors(
        self, squares: Sequence[Float[Array, " batch"]], norm: Float[Array, ""] | None
    ) -> tuple[list[Float[Array, " batch"]], Bool[Array, " batch"]]:
        """What each record's gradient is multiplied by, leaf by leaf, and which records are scaled down."""
        ...

    def follow(
        self, norm: Float[Array, ""] | None, surplus: Float[Array, ""], normal: Sequence[Float[Array, " _"]]
    ) -> Float[Array, ""] | None:
        """C of the next step.

        Args:
            norm: C of this step.
            surplus: Σ (b - 1/2) over the records, b = 1 for those that were not scaled down; exact, so only with
                noise may anything follow from it.
            normal: standard normal numbers, one or more where C moves, none else; used for nothing else.
        """
        ...


@dataclass(frozen=True)
class _Constant:
    """What clippings with a constant norm share.

    Attributes:
        clipping_norm: C >= 1e-5, in the gradient's own unit.
    """

    clipping_norm: float

    def __post_init__(self) -> None:
        _check_norm(self.clipping_norm)

    def begin(self) -> None:
        """Nothing moves."""

    def sensitivity(self, norm: Float[Array, ""] | None) -> float:
        """C: no record's gradient is longer after clipping."""
        del norm
        return self.clipping_norm

    def gradient_noise(self, noise_multiplier: float) -> float:
        """The same: the sum is all that is released."""
        return noise_multiplier

    def follow(
        self, norm: Float[Array, ""] | None, surplus: Float[Array, ""], normal: Sequence[Float[Array, " _"]]
    ) -> None:
        """Nothing moves."""


@dataclass(frozen=True)
class FlatClipping(_Constant):
    """One bound for the whole gradient (Abadi et al., 2016).

    Attributes:
        clipping_norm: C >= 1e-5, in the gradient's own unit.
    """

    def factors(
        self, squares: Sequence[Float[Array, " batch"]], norm: Float[Array, ""] | None
    ) -> tuple[list[Float[Array, " batch"]], Bool[Array, " batch"]]:
        """min(1, C / length) for all leaves."""
        del norm
        return _flat(squares, self.clipping_norm)


@dataclass(frozen=True)
class PerLayerClipping(_Constant):
    """The same bound for each of L leaves, C / sqrt(L), so that the whole gradient keeps to C: L times C² / L.

    Attributes:
        clipping_norm: C >= 1e-5, of the whole gradient.

    Source: McMahan et al. (2018), "Learning differentially private recurrent language models", section 3.1.
    """

    def factors(
        self, squares: Sequence[Float[Array, " batch"]], norm: Float[Array, ""] | None
    ) -> tuple[list[Float[Array, " batch"]], Bool[Array, " batch"]]:
        """min(1, C / (sqrt(L) length)) of each leaf; a record counts as scaled down if one of its leaves is."""
        del norm
        bounded = [_bounded(square, self.clipping_norm / math.sqrt(len(squares))) for square in squares]
        shortened = jnp.any(jnp.stack([one for _, one in bounded]), axis=0)
        return [factor for factor, _ in bounded], shortened


@dataclass(frozen=True)
class AutomaticClipping(_Constant):
    """Each gradient normalised, whatever its length: C g / (‖g‖ + γ).

    Attributes:
        clipping_norm: C from 1e-5 to 1e6: what the normalised gradients' lengths stay below.
        stability: γ >= 1e-5, in the gradient's own unit; keeps short gradients short.

    Source: Bu et al. (2023), "Automatic clipping: differentially private deep learning made easier and stronger".
    """

    stability: float = 0.01

    def __post_init__(self) -> None:
        _check_norm(self.clipping_norm, largest=LARGEST_NORM)
        if not _SMALLEST_NORM <= self.stability < float("inf"):
            raise ValueError(f"Expected finite {self.stability=} >= {_SMALLEST_NORM}.")

    def factors(
        self, squares: Sequence[Float[Array, " batch"]], norm: Float[Array, ""] | None
    ) -> tuple[list[Float[Array, " batch"]], Bool[Array, " batch"]]:
        """C / (length + γ) for all leaves."""
        del norm
        length = jnp.sqrt(_total(squares))
        factor = jnp.float32(self.clipping_norm / (1.0 + MARGIN)) / (length + jnp.float32(self.stability))
        return [factor] * len(squares), factor < 1


@dataclass(frozen=True, kw_only=True)
class AdaptiveClipping:
    """Flat clipping whose norm follows a quantile of the gradients' lengths, told by noisy counts.

    Each step releases Σ (b - 1/2) + N(0, σ_b²), b = 1 for records that were not scaled down, beside the noisy sum.
    Adding or removing one record moves the count by 1/2 and the sum by C, so that both together cost what a single
    Gaussian of multiplier z costs if 1/z² = 1/z_Δ² + 1/(2σ_b)².

    Attributes:
        clipping_norm: C of the first step, from 1e-5 to 1e6; later ones stay within these limits.
        quantile: γ in (0, 1): the share of records that should not be scaled down.
        rate: η_C > 0.
        count_noise: σ_b > 0, in records.
        expected_batch_size: by which the noisy count is divided; a public constant.

    Source: Andrew et al. (2021), "Differentially private learning with adaptive clipping", Algorithm 1, Theorem 1.
    """

    clipping_norm: float
    quantile: float
    rate: float
    count_noise: float
    expected_batch_size: int

    def __post_init__(self) -> None:
        _check_norm(self.clipping_norm, largest=LARGEST_NORM)
        if not 0 < self.quantile < 1:
            raise ValueError(f"Expected {self.quantile=} in (0, 1).")
        if not (0 < self.rate < float("inf") and 0 < self.count_noise < float("inf") and self.expected_batch_size > 0):
            raise ValueError(f"Expected {self.rate=}, {self.count_noise=} and {self.expected_batch_size=} above 0.")

    def begin(self) -> Float[Array, ""]:
        """C of the first step, in a buffer of its own."""
        return jnp.array(self.clipping_norm, jnp.float32)

    def sensitivity(self, norm: Float[Array, ""] | None) -> Float[Array, ""]:
        """C of this step."""
        return _moving(norm)

    def gradient_noise(self, noise_multiplier: float) -> float:
        """z_Δ = (z^-2 - (2σ_b)^-2)^(-1/2), Theorem 1.

        Raises:
            ValueError: z is not below 2σ_b, so that the count alone would cost more than all may.
        """
        share = noise_multiplier / (2.0 * self.count_noise)
        if share >= 1:
            raise ValueError(f"Expected {noise_multiplier=} < 2 * {self.count_noise=}.")
        return noise_multiplier / math.sqrt(1.0 - share**2)

    def factors(
        self, squares: Sequence[Float[Array, " batch"]], norm: Float[Array, ""] | None
    ) -> tuple[list[Float[Array, " batch"]], Bool[Array, " batch"]]:
        """min(1, C / length) for all leaves."""
        return _flat(squares, _moving(norm))

    def follow(
        self, norm: Float[Array, ""] | None, surplus: Float[Array, ""], normal: Sequence[Float[Array, " _"]]
    ) -> Float[Array, ""]:
        """C exp(-η_C (b̃ - γ)) within the limits, b̃ the noisy share of records that were not scaled down."""
        noisy = surplus + shaped_like(surplus, normal, std=self.count_noise)
        share = noisy / self.expected_batch_size + 0.5
        moved = _moving(norm) * jnp.exp(-self.rate * (share - self.quantile))
        return jnp.clip(moved, _SMALLEST_NORM, LARGEST_NORM)


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


def _check_norm(clipping_norm: float, *, largest: float = sys.float_info.max) -> None:
    if not _SMALLEST_NORM <= clipping_norm <= largest:
        raise ValueError(f"Expected {clipping_norm=} from {_SMALLEST_NORM} to {largest}.")


def _moving(norm: Float[Array, ""] | None) -> Float[Array, ""]:
    if norm is None:
        raise ValueError("Expected a step's state that holds the clipping norm.")
    return norm


def _total(squares: Sequence[Float[Array, " batch"]]) -> Float[Array, " batch"]:
    return jnp.sum(jnp.stack(list(squares)), axis=0)


def _flat(
    squares: Sequence[Float[Array, " batch"]], clipping_norm: Float[Array, ""] | float
) -> tuple[list[Float[Array, " batch"]], Bool[Array, " batch"]]:
    factor, shortened = _bounded(_total(squares), clipping_norm)
    return [factor] * len(squares), shortened


def _bounded(
    square: Float[Array, " batch"], clipping_norm: Float[Array, ""] | float
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
