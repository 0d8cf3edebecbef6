"""Moments of one step's privacy loss by Gauss-Legendre quadrature, and the tilts that they lead to.

Source of a tilt's choice: the saddle point of Chernoff's bound, log P(sum >= s) <= T K(θ) - θ s with T K'(θ) = s.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import optimize

from dpmed.privacy.losses import StepLoss, log_normal_density

Vector = Float[np.ndarray, " n"]

# The length of an interval, in standard deviations.
PANEL = 0.25
_RULES = {points: np.polynomial.legendre.leggauss(points) for points in (2, 4)}
# Masses under e^-41 = 1.6e-18 do not matter.
_NOTHING = 41.0
_LARGEST_TILT = 1e9


@dataclass(frozen=True, eq=False)
class Quadrature:
    """One step's loss at points that carry its mass: for moments and tilts.

    Attributes:
        losses: L at each point.
        log_mass_p: log of the mass under P.
        missing: mass under P and under Q that the step leaves out.
        slack: how far the support's end lies above the highest point, where mass ends abruptly.
    """

    losses: Vector
    log_mass_p: Vector
    missing: tuple[float, float] = (0.0, 0.0)
    slack: float = 0.0

    def cumulants(self, tilt: float) -> tuple[float, float, float]:
        """K(θ) = log E_P exp(θL) and its first two derivatives."""
        log_weights = self.log_mass_p + tilt * self.losses
        largest = float(log_weights.max())
        weights = np.exp(log_weights - largest)
        total = float(weights.sum())
        mean = float(weights @ self.losses) / total
        variance = float(weights @ np.square(self.losses - mean)) / total
        return self.log_moment(tilt), mean, variance

    def log_moment(self, tilt: float) -> float:
        """K(θ), precise also where it is near zero."""
        # K(0) = K(1) = 0. Near either end the sum of expm1 keeps the digits that a logarithm of about 1 would lose.
        anchor = 0.0 if tilt < 0.5 else 1.0  # noqa: PLR2004 the middle
        exponent = (tilt - anchor) * self.losses
        log_mass = self.log_mass_p + anchor * self.losses
        matters = log_mass + np.maximum(exponent, 0) > -_NOTHING
        if float(np.max(np.abs(exponent) * matters)) < 1:
            left_out = self.missing[round(anchor)]
            return math.log1p(float(np.exp(log_mass[matters]) @ np.expm1(exponent[matters])) - left_out)
        both = log_mass + exponent
        largest = float(both.max())
        return largest + math.log(float(np.exp(both - largest).sum()))


@lru_cache(maxsize=64)
def quadrature(step: StepLoss) -> Quadrature:
    """Gauss-Legendre points over the step's support."""
    edges = [np.linspace(low, high, max(2, math.ceil((high - low) / PANEL) + 1)) for low, high in step.intervals]
    points, weights = gauss(np.concatenate([e[:-1] for e in edges]), np.concatenate([e[1:] for e in edges]))
    log_mass = np.log(weights) + log_normal_density(points) + step.log_mass
    losses = step.loss(points).ravel()
    end = float(step.loss(np.asarray([step.intervals[-1][1]]))[0])
    slack = max(0.0, end - float(losses.max())) if step.missing[1] > 0 else 0.0
    return Quadrature(losses, log_mass.ravel(), step.missing, slack)


def gauss(low: Vector, high: Vector, points: int = 4) -> tuple[Float[np.ndarray, "n p"], Float[np.ndarray, "n p"]]:
    """Points and weights of the Gauss-Legendre rule of 2 or 4 points on each interval."""
    nodes, weights = _RULES[points]
    half = 0.5 * (high - low)[:, None]
    return (0.5 * (low + high))[:, None] + half * nodes, half * weights


def chernoff_above(points: Quadrature, *, steps: int, tilt: float, place: float) -> float:
    """A bound on Q(sum of T losses >= place), for θ > 1; for θ < 0 on P(sum <= place)."""
    anchor = 1.0 if tilt > 1 else 0.0
    return math.exp(min(0.0, steps * points.log_moment(tilt) - (tilt - anchor) * place))


def tilt_for_mean(
    points: Quadrature, target: float, *, low: float = -_LARGEST_TILT, high: float = _LARGEST_TILT
) -> float:
    """The θ whose tilted mean loss of one step is `target`, within [low, high]."""
    return root(lambda tilt: points.cumulants(tilt)[1] - target, low, high)


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """A root of a rising function; an end of the interval where it lies beyond."""

    # Steps are even in asinh(θ): tilts of 1e-6 and of 1e6 both occur.
    def warped(place: float) -> float:
        return function(math.sinh(place))

    start, end = math.asinh(low), math.asinh(high)
    if warped(start) >= 0:
        return low
    if warped(end) <= 0:
        return high
    return math.sinh(float(optimize.brentq(warped, start, end, xtol=1e-6, rtol=1e-9, maxiter=200)))
