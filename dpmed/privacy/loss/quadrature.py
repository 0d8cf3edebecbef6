"""Gauss-Legendre points that carry the mass of one step's privacy loss, and roots."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import optimize

from dpmed.privacy.loss.losses import StepLoss, log_normal_density

Vector = Float[np.ndarray, " n"]

# The length of an interval, in standard deviations.
PANEL = 0.25
# Masses below e^-41 = 1.6e-18 are negligible.
NOTHING = 41.0
_RULES = {points: np.polynomial.legendre.leggauss(points) for points in (2, 4)}


@dataclass(frozen=True, eq=False)
class Quadrature:
    """One step's loss at points that carry its mass.

    Attributes:
        losses: L at each point.
        log_mass_p: log of the mass under P.
        slack: how far the support's end lies above the highest point if the mass ends abruptly.
    """

    losses: Vector
    log_mass_p: Vector
    slack: float


@lru_cache(maxsize=4096)
def quadrature(step: StepLoss) -> Quadrature:
    """Gauss-Legendre points over the step's support."""
    edges = [np.linspace(low, high, max(2, math.ceil((high - low) / PANEL) + 1)) for low, high in step.intervals]
    points, weights = gauss(np.concatenate([e[:-1] for e in edges]), np.concatenate([e[1:] for e in edges]))
    log_mass = np.log(weights) + log_normal_density(points) + step.log_mass
    losses = step.loss(points).ravel()
    end = float(step.loss(np.asarray([step.intervals[-1][1]]))[0])
    slack = max(0.0, end - float(losses.max())) if step.missing[1] > 0 else 0.0
    return Quadrature(losses, log_mass.ravel(), slack)


def gauss(low: Vector, high: Vector, points: int = 4) -> tuple[Float[np.ndarray, "n p"], Float[np.ndarray, "n p"]]:
    """Points and weights of the Gauss-Legendre rule of 2 or 4 points on each interval."""
    nodes, weights = _RULES[points]
    half = 0.5 * (high - low)[:, None]
    return (0.5 * (low + high))[:, None] + half * nodes, half * weights


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """A root of an increasing function, or an end of the interval if the root lies outside."""

    # The search is uniform in asinh(θ), since tilts of both 1e-6 and 1e6 occur.
    def warped(place: float) -> float:
        return function(math.sinh(place))

    start, end = math.asinh(low), math.asinh(high)
    if warped(start) >= 0:
        return low
    if warped(end) <= 0:
        return high
    return math.sinh(float(optimize.brentq(warped, start, end, xtol=1e-6, rtol=1e-9, maxiter=200)))
