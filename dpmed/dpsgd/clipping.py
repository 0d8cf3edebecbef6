"""Ways of clipping: how a record's factor is computed from its norms, and how far one record can then move the sum.

The sum itself is computed in `dpmed.dpsgd.clipped_sum`.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dpmed.dpsgd.noise import shaped_like

# Far from the limits of float32, the type of gradients and of varying norms.
_SMALLEST_NORM = 1e-5
LARGEST_NORM = 1e6


@runtime_checkable
class Clipping(Protocol):
    """A way of bounding the influence of one record.

    If the clipping norm C varies from step to step, `norm` is its value at this step, `()` float32, and belongs to the
    step's state; if C is constant, `norm` is always None.
    """

    @property
    def clipping_norm(self) -> float:
        """C of the first step."""
        ...

    def begin(self) -> Float[Array, ""] | None:
        """C of the first step, as stored in the step's state."""
        ...

    def sensitivity(self, norm: Float[Array, ""] | None) -> Float[Array, ""] | float:
        """Adding or removing one record moves the sum by at most this in L2 norm."""
        ...

    def gradient_noise(self, noise_multiplier: float) -> float:
        """The sum's noise multiplier at which all that a step releases costs as much as `noise_multiplier`."""
        ...

    def factors(
        self, squares: Sequence[Float[Array, " batch"]], norm: Float[Array, ""] | None
    ) -> tuple[list[Float[Array, " batch"]], Bool[Array, " batch"]]:
        """The factor of each record's gradient, leaf by leaf, and which records are scaled down.

        Args:
            squares: for each leaf, the squared norm of each record's gradient, float64 in training.
            norm: C of this step, if it varies.

        Returns:
            Factors in the type of `squares`, which make no record longer than C, except for their own rounding.
        """
        ...

    def next_norm(
        self, norm: Float[Array, ""] | None, surplus: Float[Array, ""], normal: Sequence[Float[Array, " _"]]
    ) -> Float[Array, ""] | None:
        """C of the next step.

        Args:
            norm: C of this step.
            surplus: Σ (b - 1/2) over the records, b = 1 for those that were not scaled down; exact, so it must only be
                used with noise.
            normal: standard normal numbers, used for nothing else: at least one if C varies, otherwise none.
        """
        ...


@dataclass(frozen=True)
class _Constant:
    """What all ways of clipping with a constant norm share.

    Attributes:
        clipping_norm: C >= 1e-5, in the gradient's unit.
    """

    clipping_norm: float

    def __post_init__(self) -> None:
        _check_norm(self.clipping_norm)

    def begin(self) -> None:
        """None, since C is constant."""

    def sensitivity(self, norm: Float[Array, ""] | None) -> float:
        """C: no record's gradient is longer after clipping."""
        del norm
        return self.clipping_norm

    def gradient_noise(self, noise_multiplier: float) -> float:
        """The same, since only the sum is released."""
        return noise_multiplier

    def next_norm(
        self, norm: Float[Array, ""] | None, surplus: Float[Array, ""], normal: Sequence[Float[Array, " _"]]
    ) -> None:
        """None, since C is constant."""


@dataclass(frozen=True)
class FlatClipping(_Constant):
    """One bound for the whole gradient (Abadi et al., 2016).

    Attributes:
        clipping_norm: C >= 1e-5, in the gradient's unit.
    """

    def factors(
        self, squares: Sequence[Float[Array, " batch"]], norm: Float[Array, ""] | None
    ) -> tuple[list[Float[Array, " batch"]], Bool[Array, " batch"]]:
        """min(1, C / length) for all leaves."""
        del norm
        return _flat(squares, self.clipping_norm)


@dataclass(frozen=True)
class PerLayerClipping(_Constant):
    """The same bound C / sqrt(L) for each of L leaves, so the whole gradient stays within C: L times C² / L.

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
        clipped = jnp.any(jnp.stack([one for _, one in bounded]), axis=0)
        return [factor for factor, _ in bounded], clipped


@dataclass(frozen=True)
class AutomaticClipping(_Constant):
    """Each gradient normalised, whatever its length: C g / (‖g‖ + γ).

    Attributes:
        clipping_norm: C from 1e-5 to 1e6: the normalised gradients' lengths stay below it.
        stability: γ >= 1e-5, in the gradient's unit; keeps short gradients short.

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
        factor = jnp.asarray(self.clipping_norm, length.dtype) / (length + jnp.asarray(self.stability, length.dtype))
        return [factor] * len(squares), factor < 1


@dataclass(frozen=True, kw_only=True)
class AdaptiveClipping:
    """Flat clipping whose norm follows a quantile of the gradients' lengths, estimated from noisy counts.

    Besides the noisy sum, each step releases Σ (b - 1/2) + N(0, σ_b²), with b = 1 for records that were not scaled
    down. Adding or removing one record moves the count by 1/2 and the sum by C, so both together cost as much as a
    single Gaussian with noise multiplier z if 1/z² = 1/z_Δ² + 1/(2σ_b)².

    Attributes:
        clipping_norm: C of the first step, from 1e-5 to 1e6; later ones stay within these limits.
        quantile: γ in (0, 1): the share of records that should not be scaled down.
        rate: η_C > 0.
        count_noise: σ_b > 0, in records.
        expected_batch_size: the divisor of the noisy count; a public constant.

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
        """C of the first step, in its own buffer."""
        return jnp.array(self.clipping_norm, jnp.float32)

    def sensitivity(self, norm: Float[Array, ""] | None) -> Float[Array, ""]:
        """C of this step."""
        return _moving(norm)

    def gradient_noise(self, noise_multiplier: float) -> float:
        """z_Δ = (z^-2 - (2σ_b)^-2)^(-1/2), Theorem 1.

        Raises:
            ValueError: z is not below 2σ_b: the count alone would use up the budget.
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

    def next_norm(
        self, norm: Float[Array, ""] | None, surplus: Float[Array, ""], normal: Sequence[Float[Array, " _"]]
    ) -> Float[Array, ""]:
        """C exp(-η_C (b̃ - γ)) within the limits; b̃ is the noisy share of records that were not scaled down."""
        noisy = surplus + shaped_like(surplus, normal, std=self.count_noise)
        share = noisy / self.expected_batch_size + 0.5
        moved = _moving(norm) * jnp.exp(-self.rate * (share - self.quantile))
        return jnp.clip(moved, _SMALLEST_NORM, LARGEST_NORM)


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
    factor, clipped = _bounded(_total(squares), clipping_norm)
    return [factor] * len(squares), clipped


def _bounded(
    square: Float[Array, " batch"], clipping_norm: Float[Array, ""] | float
) -> tuple[Float[Array, " batch"], Bool[Array, " batch"]]:
    bound = jnp.asarray(clipping_norm, square.dtype)
    norm = jnp.sqrt(square)
    too_long = norm > bound
    return jnp.where(too_long, bound / jnp.where(too_long, norm, bound), jnp.ones_like(norm)), too_long
