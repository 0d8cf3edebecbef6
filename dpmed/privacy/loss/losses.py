"""The privacy loss of one step, for each adversary, as a function of what the adversary sees.

In units of the noise's standard deviation a step shows the adversary a number x: without the target it is drawn from P
= N(0, 1); with the target, which takes part with probability q and then moves the sum by μ = 1/σ, from Q = (1 - q) N(0,
1) + q N(μ, 1) (Mironov et al., 2019). The privacy loss is L(x) = log dQ/dP, and it grows with x.

The relaxed adversary does not know the direction of the target's gradient: after projection, its sign, which is unknown
afresh in each step. What remains is |x|, and L(x) = log(1 - q + q exp(-μ²/2) cosh(μx)) for x >= 0 (a likelihood ratio
of χ²₁ against a mixture with the non-central χ'²₁(μ²); Ziller et al., 2024).

Numbers are kept in the log domain wherever they could leave the range of floats: μ may be 10⁻⁵ or 10⁹.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

Adversary = Literal["worst-case", "relaxed"]
Array = Float[np.ndarray, "..."]

# Beyond 13 standard deviations a normal distribution has a mass of 6e-39: less than 1e-30 even over 10^7 steps.
REACH = 13.0

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_LARGE = 30.0  # above this exponent, 1 is below the last digit of exp


@runtime_checkable
class StepLoss(Protocol):
    """One step as one adversary sees it."""

    def __hash__(self) -> int: ...

    @property
    def lowest(self) -> float:
        """The infimum of the loss."""
        ...

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """Disjoint intervals in increasing order that hold all but 1e-38 of P and of Q."""
        ...

    @property
    def log_mass(self) -> float:
        """The logarithm of the factor on the density of P: 0, or log 2 if x stands for both signs."""
        ...

    def loss(self, x: Array) -> Array:
        """L(x)."""
        ...

    def place(self, loss: Array) -> Array:
        """The x with L(x) = `loss`; the lower end of the support if no x has so low a loss."""
        ...

    @property
    def missing(self) -> tuple[float, float]:
        """The mass under P and under Q that the step leaves out."""
        ...

    def mass_above(self, x: float) -> tuple[float, float]:
        """P and Q of everything above x."""
        ...


@dataclass(frozen=True)
class WorstCase:
    """The adversary who knows everything except whether the target took part.

    Attributes:
        rate: sampling rate q in (0, 1).
        shift: μ = 1/σ > 0.
    """

    rate: float
    shift: float

    @property
    def lowest(self) -> float:
        """log(1 - q)."""
        return math.log1p(-self.rate)

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """Around 0 and around μ."""
        return _around_both(self.shift)

    @property
    def log_mass(self) -> float:
        """Every x stands for itself."""
        return 0.0

    def loss(self, x: Array) -> Array:
        """log(1 - q + q exp(μx - μ²/2))."""
        return _log_mixture(self.rate, self.shift * (x - 0.5 * self.shift))

    def place(self, loss: Array) -> Array:
        """The inverse of `loss`."""
        return _log_ratio(self.rate, loss) / self.shift + 0.5 * self.shift

    @property
    def missing(self) -> tuple[float, float]:
        """Nothing is left out."""
        return 0.0, 0.0

    def mass_above(self, x: float) -> tuple[float, float]:
        """P and Q of everything above x."""
        without = _upper_tail(x)
        return without, (1 - self.rate) * without + self.rate * _upper_tail(x - self.shift)


@dataclass(frozen=True)
class Gaussian:
    """The adversary who knows everything, with full batches: the Gaussian mechanism.

    Attributes:
        shift: μ > 0; for several such mechanisms, the root of the sum of squares.
    """

    shift: float

    @property
    def lowest(self) -> float:
        """L at the lower end of the support; there is no infimum."""
        return -self.shift * (REACH + 0.5 * self.shift)

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """Around 0 and around μ."""
        return _around_both(self.shift)

    @property
    def log_mass(self) -> float:
        """Every x stands for itself."""
        return 0.0

    def loss(self, x: Array) -> Array:
        """μx - μ²/2."""
        return self.shift * (x - 0.5 * self.shift)

    def place(self, loss: Array) -> Array:
        """The inverse of `loss`."""
        return loss / self.shift + 0.5 * self.shift

    @property
    def missing(self) -> tuple[float, float]:
        """Nothing is left out."""
        return 0.0, 0.0

    def mass_above(self, x: float) -> tuple[float, float]:
        """P and Q of everything above x."""
        return _upper_tail(x), _upper_tail(x - self.shift)


@dataclass(frozen=True)
class Relaxed:
    """The adversary who does not know the sign of the target's contribution, which is unknown afresh in each step.

    Attributes:
        rate: sampling rate q in (0, 1].
        shift: μ = 1/σ > 0.
    """

    rate: float
    shift: float

    @property
    def lowest(self) -> float:
        """L(0) = log(1 - q + q exp(-μ²/2))."""
        return float(_log_mixture(self.rate, np.asarray(-0.5 * self.shift * self.shift)))

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """Around 0 and around μ, of the positive half-line."""
        return _merge((0.0, REACH), (max(0.0, self.shift - REACH), self.shift + REACH))

    @property
    def log_mass(self) -> float:
        """Every x > 0 stands for -x too."""
        return math.log(2)

    def loss(self, x: Array) -> Array:
        """log(1 - q + q exp(-μ²/2) cosh(μx))."""
        product = self.shift * x
        log_cosh = product + np.log1p(np.exp(-2 * product)) - math.log(2)
        # Written as μ(x - μ/2), the two large terms do not cancel.
        return _log_mixture(self.rate, self.shift * (x - 0.5 * self.shift) + (log_cosh - product))

    def place(self, loss: Array) -> Array:
        """The inverse of `loss`."""
        log_cosh = np.maximum(_log_ratio(self.rate, loss) + 0.5 * self.shift * self.shift, 0.0)
        small = np.minimum(log_cosh, _LARGE)
        # arccosh(1 + d) by its stable form, d = cosh - 1.
        excess = np.expm1(small)
        near = np.log1p(excess + np.sqrt(excess * (excess + 2)))
        return np.where(log_cosh < _LARGE, near, log_cosh + math.log(2)) / self.shift

    @property
    def missing(self) -> tuple[float, float]:
        """Nothing is left out."""
        return 0.0, 0.0

    def mass_above(self, x: float) -> tuple[float, float]:
        """P and Q of everything above x."""
        without = 2 * _upper_tail(x)
        with_ = _upper_tail(x - self.shift) + _upper_tail(x + self.shift)
        return without, (1 - self.rate) * without + self.rate * with_


@dataclass(frozen=True)
class Capped:
    """A step without losses above a cap, each of which alone decides a test.

    Attributes:
        whole: the step.
        cap: the largest L.
    """

    whole: StepLoss
    cap: float

    @property
    def lowest(self) -> float:
        """The whole step's."""
        return self.whole.lowest

    @property
    def log_mass(self) -> float:
        """The whole step's."""
        return self.whole.log_mass

    @property
    def end(self) -> float:
        """The x at which the cap is reached."""
        return float(self.whole.place(np.asarray([self.cap]))[0])

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """The whole step's, up to the cap."""
        end = self.end
        return [(low, min(high, end)) for low, high in self.whole.intervals if low < end]

    @property
    def missing(self) -> tuple[float, float]:
        """What is above the cap."""
        return self.whole.mass_above(self.end)

    def mass_above(self, x: float) -> tuple[float, float]:
        """P and Q of everything from x to the cap."""
        end, here = self.missing, self.whole.mass_above(x)
        return max(here[0] - end[0], 0.0), max(here[1] - end[1], 0.0)

    def loss(self, x: Array) -> Array:
        """The whole step's."""
        return self.whole.loss(x)

    def place(self, loss: Array) -> Array:
        """The whole step's."""
        return self.whole.place(loss)


def step_loss(adversary: Adversary, *, sampling_rate: float, noise_multiplier: float) -> WorstCase | Gaussian | Relaxed:
    """One step as `adversary` sees it."""
    if adversary == "relaxed":
        return Relaxed(sampling_rate, 1.0 / noise_multiplier)
    return WorstCase(sampling_rate, 1.0 / noise_multiplier) if sampling_rate < 1 else Gaussian(1.0 / noise_multiplier)


def _upper_tail(x: float) -> float:
    return 0.5 * math.erfc(x / math.sqrt(2))


def log_normal_density(x: Array) -> Array:
    """The logarithm of φ(x)."""
    return -0.5 * x * x - _LOG_SQRT_2PI


def _log_mixture(rate: float, exponent: Array) -> Array:
    """log(1 - q + q exp(e)), to full relative precision even near zero."""
    if rate == 1:
        return exponent
    small = np.log1p(rate * np.expm1(np.minimum(exponent, _LARGE)))
    rest = (1 - rate) / rate * np.exp(-np.maximum(exponent, _LARGE))
    return np.where(exponent < _LARGE, small, math.log(rate) + exponent + np.log1p(rest))


def _log_ratio(rate: float, loss: Array) -> Array:
    """The e with log(1 - q + q exp(e)) = `loss`; minus infinity where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.expm1(np.minimum(loss, _LARGE)) / rate
        near = np.where(ratio > -1, np.log1p(np.maximum(ratio, -1)), -np.inf)
    far = loss - math.log(rate) + np.log1p(-(1 - rate) * np.exp(-np.maximum(loss, _LARGE)))
    return np.where(loss < _LARGE, near, far)


def _around_both(shift: float) -> list[tuple[float, float]]:
    """Intervals around the means of Q and P, 0 and μ."""
    return _merge((-REACH, REACH), (shift - REACH, shift + REACH))


def _merge(first: tuple[float, float], second: tuple[float, float]) -> list[tuple[float, float]]:
    if second[0] <= first[1]:
        return [(min(first[0], second[0]), max(first[1], second[1]))]
    return [first, second]
