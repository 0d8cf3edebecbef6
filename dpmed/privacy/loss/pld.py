"""ε of Poisson-subsampled Gaussian steps from the distribution of their privacy loss, bounded from above.

δ(ε) is the larger of two directions, since the target may be removed or added (add-or-remove-one): E_Q max(0, 1 - exp(ε
- L)) and E_P max(0, 1 - exp(ε + L)), where L is the summed loss.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.linalg import blas

from dpmed.privacy.loss.composition import Composed, compose, lost_above, lost_below
from dpmed.privacy.loss.grid import OffGridError, share_under_p, share_under_q
from dpmed.privacy.loss.quadrature import root
from dpmed.privacy.loss.summed import SummedLoss, bound_beyond, ever, parts_of, summed_loss
from dpmed.privacy.loss.window import Side, fit_window
from dpmed.privacy.mechanism import SampledGaussian

# The grid may raise ε by this fraction; what rounding may take away is far less and is added on top.
_GRID_ERROR = 2e-4
_ROUNDING = 1e-7
_SMALLEST_EPSILON = 1e-4
# Masses are known to about 1e-6, which is all that there is of 1 - δ if δ is still nearer to 1.
_LARGEST_DELTA = 0.99
_MOST_REFINEMENTS = 7
# The mass that rounding in a convolution may lose for each step; none if tails are tilted up beforehand.
_LOST_BY_ROUNDING = 1e-15


def pld_epsilon(mechanisms: Sequence[SampledGaussian], delta: float) -> float:
    """The smallest ε >= 0 at δ of all steps together, rounded up.

    From ε = 0.01 on it is too large by at most 0.1 %; below, it may be several times too large where rare steps have
    large losses.

    Args:
        mechanisms: at least one step; for σ below about 0.003 with q < 1, where steps reveal who took part, the bound
            is loose.
        delta: δ in (0, 1). Above 0.99, ε is that at 0.99, which is no smaller.
    """
    delta = min(delta, _LARGEST_DELTA)
    summed = summed_loss(parts_of(mechanisms, "worst-case"))
    removed = _removed(summed, delta)
    epsilon = max(removed, _added(summed, delta, at_least=removed))
    return float(epsilon) * (1 + _ROUNDING) if epsilon > 0 else 0.0


def _removed(summed: SummedLoss, delta: float) -> float:
    """ε of the direction in which the target is removed."""

    def exponent(tilt: float) -> float:
        return (tilt - 1) * summed.mean(tilt) - summed.log_moment(tilt) + math.log(delta)

    tilt = root(exponent, 1.0, 1e9)
    return _refine(summed, delta, tilt=tilt, near=summed.mean(tilt), sign=1.0)


def _added(summed: SummedLoss, delta: float, *, at_least: float) -> float:
    """ε of the other direction, or 0 if it is certainly below `at_least`."""
    if -summed.base <= at_least:
        return 0.0
    tilt = summed.tilt_for_mean(-at_least, high=0.0)
    if summed.log_moment(tilt) + tilt * at_least <= math.log(delta):
        return 0.0

    def exponent(place: float) -> float:
        return -place * summed.mean(-place) - summed.log_moment(-place) + math.log(delta)

    tilt = -root(exponent, 0.0, 1e9)
    return _refine(summed, delta, tilt=tilt, near=-summed.mean(tilt), sign=-1.0)


@dataclass(frozen=True)
class _Found:
    """A solution, the slope of log δ in ε there, and the share of δ spent on mass that the grid does not see."""

    epsilon: float
    slope: float
    unseen: float = 0.0

    @property
    def is_wasteful(self) -> bool:
        """Whether a tilt that sees more would do better: ε is too high by that share divided by the slope."""
        if math.isinf(self.epsilon):
            return True
        return self.unseen > _GRID_ERROR * max(self.slope * max(self.epsilon, _SMALLEST_EPSILON), 1.0)


_NOT_FOUND = _Found(math.inf, 0.0, math.inf)


def _refine(summed: SummedLoss, delta: float, *, tilt: float, near: float, sign: float) -> float:
    """ε by the tilt of Chernoff's bound, or, if δ has no exponential tail there, by a tilt fitted to the result.

    Infinite if δ is not reached on any grid.
    """
    best = math.inf
    if near > 0:
        found = _solve(summed, delta, tilt=tilt, near=near, sign=sign)
        is_tail = found.slope > 0.5 * max(tilt - 1, -tilt) and found.epsilon > 0.5 * near
        if is_tail and not found.is_wasteful:
            return found.epsilon
        best = found.epsilon
        near = best if math.isfinite(best) else near
    tilt, untilted = summed.tilt_for_mean(sign * near), 1.0 if sign > 0 else 0.0
    refinement = 1.0
    for _ in range(_MOST_REFINEMENTS):
        found = _solve(summed, delta, tilt=tilt, near=near, sign=sign, refinement=refinement)
        # Halving the spacing quarters the error, so a third of the last change remains.
        settled = refinement > 1 and found.epsilon >= best * (1 - _GRID_ERROR)
        best = min(best, found.epsilon)
        if found.is_wasteful and tilt != untilted:
            # As for bounded losses, near whose end a tilted grid ends too; untilted, all of them are seen.
            tilt = untilted
            continue
        if settled:
            break
        refinement *= 4.0
    return best


def _solve(
    summed: SummedLoss, delta: float, *, tilt: float, near: float, sign: float, refinement: float = 0.0
) -> _Found:
    lever = max(abs(tilt), abs(tilt - 1), 1.0)
    allowed = 2 * _GRID_ERROR * max(near, _SMALLEST_EPSILON) / (lever * max(refinement, 1.0))
    side: Side = "both" if refinement else "above" if sign > 0 else "below"
    window = fit_window(summed, tilt=tilt, variance_error=allowed, side=side, spacing=_widest(allowed))
    anchor, share = (1.0, share_under_q) if sign > 0 else (0.0, share_under_p)
    try:
        composed = compose(summed, window, anchor=anchor, share=share)
    except OffGridError:
        return _NOT_FOUND
    end = composed.losses[-1] if sign > 0 else composed.losses[0]
    if 0 <= tilt <= 1:
        # The window holds the tilted mass. Under Q more lies above it, under P below it: at δ near 1 far more.
        beyond = bound_beyond(summed, float(end), sign=sign)
    else:
        beyond = summed.chernoff_above(tilt=tilt, place=float(end))
    if window.ratio > 1:
        beyond += lost_above(summed, window) if sign > 0 else lost_below(summed, window)
    rounded = summed.steps * _LOST_BY_ROUNDING if 0 <= tilt <= 1 else 0.0
    off_grid = ever(summed, composed.above) if sign > 0 else ever(summed, composed.below + composed.above_p)
    lost = rounded + beyond + off_grid
    found = _epsilon_at(composed, delta - lost, sign=sign)
    return replace(found, unseen=lost / delta) if math.isfinite(found.epsilon) else found


def _widest(variance: float) -> float:
    """The spacing whose interpolation error is no larger than that of adding `variance` to the whole sum."""
    return math.sqrt(4 * variance)


def _epsilon_at(composed: Composed, delta: float, *, sign: float) -> _Found:
    """The ε >= 0 with δ(ε) = δ of a loss on a grid; between grid points δ is linear in exp(ε)."""
    losses, masses = composed.losses, composed.untilted()
    if sign < 0:
        losses, masses = -losses[::-1], masses[::-1]
    spacing = losses[1] - losses[0]
    tails = np.cumsum(masses[::-1])[::-1]
    # discounted[i] = sum over j >= i of masses[j] exp(-(j - i) spacing) = masses[i] + exp(-spacing) discounted[i + 1]:
    # two diagonals. (`scipy.signal.lfilter` gives the same bits; importing it takes a second.)
    diagonals = np.empty((2, len(masses)), order="F")
    diagonals[0], diagonals[1] = -math.exp(-spacing), 1.0
    discounted = blas.dtbsv(1, diagonals, masses)
    at_grid = tails - discounted
    first = int(np.searchsorted(-at_grid, -delta))
    if delta <= 0 or first >= len(losses):
        return _NOT_FOUND
    # δ falls below the target at grid point `first`, so ε lies between the previous one and this.
    epsilon = losses[first] + _log_share(tails[first], discounted[first], delta)
    lowest = losses[first - 1] if first > 0 else -math.inf
    within = max(0.0, min(max(epsilon, lowest), losses[first]))
    return _Found(float(within), float(discounted[first]) / delta)


def _log_share(tail: Float[np.ndarray, ""] | float, discounted: float, delta: float) -> float:
    return math.log((float(tail) - delta) / float(discounted)) if tail > delta else -math.inf
