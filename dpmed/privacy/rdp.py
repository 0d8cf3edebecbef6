"""ε by Rényi differential privacy: used in most earlier work, and larger than the tight ε.

The Rényi divergence of a step is K(α) / (α - 1) with K(α) = log E_P exp(αL), found by quadrature in the log domain for
every α > 1: where dp-accounting's series for fractional orders fails to converge, this needs none. At equal orders the
divergences of all steps add up, whatever their kinds.

Sources: Mironov (2017); Mironov, Talwar & Zhang (2019), section 3 (of the two directions this one is the larger);
conversion to (ε, δ): Canonne, Kamath & Steinke (2020), Proposition 12.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import optimize

from dpmed.privacy.loss.losses import REACH, WorstCase, log_normal_density
from dpmed.privacy.mechanism import SampledGaussian, merged

_PANEL = 0.25
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_MOST_PANELS = 4000
_NOTHING = -80.0  # the logarithm of a negligible mass
# log10(α - 1), from the customary lowest order to where it no longer matters. Orders closer to 1 would make ε smaller
# at extreme budgets, down to a few percent above the tight one; but earlier work, whose ε this reproduces, does not use
# them: its lowest orders are 1.05 to 1.1, at which every step counts as if the target took part in it.
_LOWEST, _HIGHEST, _PER_DECADE = math.log10(0.05), 6.0, 8


def rdp_epsilon(mechanisms: Sequence[SampledGaussian], delta: float) -> float:
    """The smallest ε >= 0 at δ of all steps together, over all orders α >= 1.05.

    Args:
        mechanisms: at least one step.
        delta: δ in (0, 1).
    """
    parts = [(WorstCase(one.sampling_rate, 1.0 / one.noise_multiplier), one.steps) for one in merged(mechanisms)]

    def divergence(exponent: float) -> float:
        excess = 10.0**exponent
        return math.fsum(steps * rdp_moment(step, excess) for step, steps in parts) / excess

    def at(exponent: float) -> float:
        return divergence(exponent) + _conversion(exponent, delta)

    grid = [float(exponent) for exponent in np.arange(_LOWEST, _HIGHEST, 1 / _PER_DECADE)]
    added = [_conversion(exponent, delta) for exponent in grid]
    values: list[float] = []
    for place, exponent in enumerate(grid):
        alone = divergence(exponent)
        values.append(alone + added[place])
        # Divergences never decrease with the order, so no ε can be smaller from here on.
        if alone + min(added[place:]) > min(values):
            break
    best = int(np.argmin(values))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    found = optimize.minimize_scalar(at, bounds=around, method="bounded", options={"xatol": 1e-6})
    return max(0.0, min(float(found.fun), values[best]))


def _conversion(exponent: float, delta: float) -> float:
    """The term that converts a divergence of order 1 + 10^exponent into ε at δ."""
    excess = 10.0**exponent
    order = 1 + excess
    return -(math.log(delta) + math.log(order)) / excess + math.log1p(-1 / order)


def rdp_epsilons(histories: Sequence[Sequence[SampledGaussian]], delta: float) -> Float[np.ndarray, " history"]:
    """`rdp_epsilon` of many compositions of few kinds of steps, over a grid of orders; up to a few percent larger.

    Args:
        histories: each with any number of mechanisms; ε is 0 for one without steps.
        delta: δ in (0, 1).
    """
    kinds = sorted({(one.sampling_rate, one.noise_multiplier) for history in histories for one in history})
    column = {kind: place for place, kind in enumerate(kinds)}
    counts = np.zeros((len(histories), len(kinds)))
    for row, history in enumerate(histories):
        for one in history:
            counts[row, column[one.sampling_rate, one.noise_multiplier]] += one.steps
    excesses = 10.0 ** np.arange(_LOWEST, _HIGHEST, 1 / _PER_DECADE)
    steps = [WorstCase(rate, 1.0 / noise) for rate, noise in kinds]
    moments = np.array([[rdp_moment(step, float(excess)) for excess in excesses] for step in steps])
    orders = 1 + excesses
    constant = np.log1p(-1 / orders) - (np.log(delta) + np.log(orders)) / excesses
    found = (counts @ moments.reshape(len(kinds), len(excesses))) / excesses + constant
    return np.where(counts.any(axis=1), np.maximum(found.min(axis=1), 0.0), 0.0)


@lru_cache(maxsize=1 << 16)
def rdp_moment(step: WorstCase, excess: float) -> float:
    """K(1 + excess) = log E_Q exp(excess · L) of one step, excess = α - 1 > 0."""
    if step.rate >= 1:
        return 0.5 * excess * (1 + excess) * step.shift**2
    points, weights = _points(step, excess)
    losses = step.loss(points)
    log_mass = np.log(weights) + log_normal_density(points) + losses
    exponent = excess * losses
    matters = log_mass + np.maximum(exponent, 0) > _NOTHING
    if float(np.abs(exponent[matters]).max()) < 1:
        return math.log1p(float(np.exp(log_mass[matters]) @ np.expm1(exponent[matters])))
    both = log_mass + exponent
    largest = float(both.max())
    return max(largest + math.log(float(np.exp(both - largest).sum())), 0.0)


def _points(step: WorstCase, excess: float) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Quadrature points around the peaks of φ(x) exp(αL(x)), which lie near 0 and near αμ."""
    peak = (1 + excess) * step.shift
    if peak < 0.5 * _MOST_PANELS * _PANEL:
        intervals = [(-REACH, peak + REACH)]
    else:
        intervals = [(-REACH, REACH), (peak - REACH, peak + REACH)]
    lows, highs = [], []
    for low, high in intervals:
        edges = np.linspace(low, high, math.ceil((high - low) / _PANEL) + 1)
        lows.append(edges[:-1])
        highs.append(edges[1:])
    starts, ends = np.concatenate(lows), np.concatenate(highs)
    half = 0.5 * (ends - starts)[:, None]
    return (0.5 * (starts + ends)[:, None] + half * _NODES).ravel(), (half * _WEIGHTS).ravel()
