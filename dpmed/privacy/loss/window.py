"""The range and resolution at which a summed loss is computed, fitted to its tilted moments before any grid is set up.

Putting a loss on a grid of spacing h adds up to h²/4 to its variance, so that T steps on one grid would need √T times
as many points as one step, and 10^7 steps would need millions. In that case, the steps are put on a fine grid in
bundles of about √T, and the sums of the bundles on a coarser one: two grids of about T^(1/4) times as many points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dpmed.privacy.loss.grid import Grid
from dpmed.privacy.loss.summed import Parts, Repeated, SummedLoss, log_moments, summed_loss

# The mass of the tilted sum that may lie outside the window: e^-41 = 1.6e-18. More loosely, e^-22 on the side behind
# the answer, from where it wraps round to the far end, discounted by e^-30; and e^-15 on the side beyond it, once
# masses there are discounted by e^-30. Mass that wraps round can only add to δ.
_OUTSIDE, _OUTSIDE_BEHIND, _OUTSIDE_BEYOND, _DISCOUNTED = 41.0, 22.0, 15.0, 30.0
_SMALLEST_GRID, _LARGEST_GRID = 1 << 11, 1 << 21
# Up to this size one grid is as fast as two, and fewer bundles than this are not worth a second grid.
_ONE_GRID, _FEWEST_BUNDLES = 1 << 13, 8
# Leftover steps fill at most about this many bundles of their own.
_MOST_RESTS = 32
_NARROWEST = 1e-7
# At which Chernoff's bound is tried, in units of the one that would be best for a normal distribution.
_EXPONENTS = np.geomspace(0.05, 20.0, 10)
# The share of the added variance that may come from skipping grid points where a step rarely falls, and its limit.
_FOR_GAPS, _WIDEST_GAP = 0.1, 0.1

Side = Literal["above", "below", "both"]


@dataclass(frozen=True)
class Bundle:
    """A number of steps of each kind, whose sum is put on the coarse grid.

    Attributes:
        counts: number of steps of each kind.
        repeats: number of such bundles.
        low: lower end of the range of their sum.
        high: upper end of that range.
    """

    counts: tuple[int, ...]
    repeats: int
    low: float
    high: float

    def of(self, summed: SummedLoss) -> SummedLoss:
        """The bundle's own summed loss."""
        parts = zip(summed.parts, self.counts, strict=True)
        return summed_loss(tuple(Repeated(part.step, count) for part, count in parts if count))


@dataclass(frozen=True)
class Window:
    """The range of the tilted sum of all losses, and its resolution.

    Attributes:
        tilt: θ.
        low: the window's lower end.
        high: its upper end.
        fine: spacing of the grid that single steps are put on.
        ratio: how many times wider the spacing of the grid for the sum of all steps is.
        grids: for each kind of step, the grid that one of them is put on.
        bundles: the steps, all in one bundle if `ratio` is 1.
    """

    tilt: float
    low: float
    high: float
    fine: float
    ratio: int
    grids: tuple[Grid, ...]
    bundles: tuple[Bundle, ...]

    @property
    def spacing(self) -> float:
        """Spacing of the grid on which all steps are summed."""
        return self.fine * self.ratio


def fit_window(
    summed: SummedLoss, *, tilt: float, variance_error: float, side: Side, spacing: float = math.inf
) -> Window:
    """A window that holds the relevant part of the tilted sum, on sufficiently fine grids.

    Args:
        summed: the steps.
        tilt: θ.
        variance_error: how much variance the grid may add to the sum, tilted.
        side: where untilted masses will be summed: `above` the tilted mean, under Q (there untilting discounts by
            θ - 1), `below` it, under P (discount -θ), or both.
        spacing: the widest spacing allowed; in a single step's tail, the added variance does not indicate the error.

    Returns:
        The coarsest grids that respect `variance_error`, or the largest ones allowed.
    """
    low, high = _ends(summed, tilt, side)
    width = max(high - low, 1e-300)
    widest = min(spacing, width / _SMALLEST_GRID)

    def window(fine: float, ratio: int, bundles: tuple[Bundle, ...]) -> Window:
        grids = _grids(summed, tilt, bundles, fine, variance_error=variance_error, widest=widest)
        return Window(tilt, low, high, fine, ratio, grids, bundles)

    alone = (Bundle(tuple(part.times for part in summed.parts), 1, low, high),)
    fine = _fine_enough(summed, tilt, variance_error, widest=widest, finest=width / _LARGEST_GRID)
    if width <= _ONE_GRID * fine:
        return window(fine, 1, alone)
    narrow = _Budget(variance_error, fine, width, widest)
    fine, ratio, bundles = _two_grids(summed, tilt, low, high, narrow, share=0.5)
    if bundles and ratio * sum(bundle.high - bundle.low for bundle in bundles) > 4 * width:
        # Rare large losses make a bundle's window nearly as wide as the whole, so the larger grid should be the
        # coarser.
        fine, ratio, bundles = _two_grids(summed, tilt, low, high, narrow, share=0.85)
    if ratio <= 1 or not bundles:
        return window(max(fine, width / _LARGEST_GRID), 1, alone)
    return window(fine, ratio, bundles)


@dataclass(frozen=True)
class _Budget:
    """The limits for two grids: added variance, spacing of one grid that respects it, width, widest spacing."""

    variance_error: float
    fine: float
    width: float
    widest: float


def _two_grids(
    summed: SummedLoss, tilt: float, low: float, high: float, budget: _Budget, *, share: float
) -> tuple[float, int, tuple[Bundle, ...]]:
    """The fine spacing, how many times wider the other is, and the bundles; none if one grid is just as good.

    The fine grid gets a share of the variance that may be added.
    """
    finest = 1e-3 * budget.width / _LARGEST_GRID
    fine = _fine_enough(summed, tilt, share * budget.variance_error, widest=budget.fine, finest=finest)
    # Each bundle may add a quarter of the square of the coarse spacing.
    left = 4 * (1 - share) * budget.variance_error
    # The sum of one of m bundles is √m times narrower, so that with this number both grids have about the same size.
    repeats = min(round(math.sqrt(left) / fine), max(part.times for part in summed.parts))
    repeats = _without_rest(repeats, summed)
    if repeats < _FEWEST_BUNDLES:
        return fine, 1, ()
    bundles = _bundles(summed, tilt, low, high, repeats)
    fine = max(fine, sum(bundle.high - bundle.low for bundle in bundles) / _LARGEST_GRID)
    coarse = min(math.sqrt(left / sum(bundle.repeats for bundle in bundles)), budget.widest)
    return fine, math.floor(max(coarse, budget.width / _LARGEST_GRID) / fine), bundles


def _ends(summed: SummedLoss, tilt: float, side: Side) -> tuple[float, float]:
    """The window's ends."""
    mean = summed.mean(tilt)
    behind = {"above": (_OUTSIDE_BEHIND, _OUTSIDE), "below": (_OUTSIDE, _OUTSIDE_BEHIND), "both": (_OUTSIDE, _OUTSIDE)}
    low, high = (_edge(summed, tilt, sign, outside) for sign, outside in zip((-1.0, 1.0), behind[side], strict=True))
    if side == "above" and tilt > 1:
        high = min(high, max(mean + _DISCOUNTED / (tilt - 1), _edge(summed, tilt, 1.0, _OUTSIDE_BEYOND)))
    if side == "below" and tilt < 0:
        low = max(low, min(mean - _DISCOUNTED / -tilt, _edge(summed, tilt, -1.0, _OUTSIDE_BEYOND)))
    low, high = max(low, summed.base), high + summed.slack
    # If nearly all mass is at one point, its rounding must not determine the scale of the grid.
    return low, max(high, low + _NARROWEST * abs(summed.base))


def _edge(summed: SummedLoss, tilt: float, sign: float, outside: float) -> float:
    """Chernoff's bound, the best over several exponents, on where all but e^-outside of the tilted sum ends."""
    best = math.inf
    moment, _, variance = summed.cumulants(tilt)
    spread = math.sqrt(variance)
    extras = [scale * math.sqrt(2 * outside) / max(spread, 1e-300) for scale in _EXPONENTS]
    extras = [extra for extra in extras if math.isfinite(extra)]
    for extra, reached in zip(extras, log_moments(summed, [tilt + sign * extra for extra in extras]), strict=True):
        best = min(best, (reached - moment + outside) / extra)
    return sign * best


def _fine_enough(summed: SummedLoss, tilt: float, variance_error: float, *, widest: float, finest: float) -> float:
    """The widest of several spacings that adds no more than this variance, or the finest."""
    bases = np.asarray([part.step.lowest for part in summed.parts])
    above_base = summed.losses - bases[:, None]
    weights = summed.times[:, None] * summed.step_weights(tilt)

    def keeps(spacing: float) -> bool:
        offset = np.remainder(above_base, spacing)
        return float((weights * offset * (spacing - offset)).sum()) <= variance_error

    spacing = widest
    while not keeps(spacing) and spacing > finest:
        spacing /= 2
    between = spacing * math.sqrt(2)
    return between if spacing < widest and keeps(between) else spacing


def _grids(
    summed: SummedLoss, tilt: float, bundles: Sequence[Bundle], spacing: float, *, variance_error: float, widest: float
) -> tuple[Grid, ...]:
    """The grid of each step: no further from its mean than any bundle may be, plus one standard deviation of slack."""
    means, variances = summed.step_cumulants(tilt)
    variance = float(summed.times @ variances)
    down = up = 0.0
    for bundle in bundles:
        counts = np.asarray(bundle.counts)
        mean, spread = float(counts @ means), math.sqrt(float(counts @ variances))
        down, up = max(down, mean - bundle.low + spread), max(up, bundle.high - mean + spread)
    # Gaps of a fraction w of the distance from the mean add at most w²/4 of the variance.
    widening = math.sqrt(4 * _FOR_GAPS * variance_error / max(variance, 1e-300))
    # Within a gap, the tilt must not change masses by more than a factor of e.
    gap = min(widest, 1.0 / max(abs(tilt), abs(tilt - 1)))
    grids = []
    for part, own in zip(summed.parts, means, strict=True):
        centre = float(own) - part.step.lowest
        first = max(0, math.floor((centre - down) / spacing))
        last = max(first + 1, math.ceil((centre + up) / spacing))
        grids.append(Grid(tilt, spacing, first, last, centre, min(widening, _WIDEST_GAP), gap))
    return tuple(grids)


def _without_rest(repeats: int, summed: SummedLoss) -> int:
    """A number of bundles near `repeats` that leaves no step over, if there is one: no extra transform is needed."""
    near = range(max(1, math.ceil(0.8 * repeats)), math.floor(1.25 * repeats) + 1)
    even = [number for number in near if all(part.times % number == 0 for part in summed.parts)]
    return min(even, key=lambda number: abs(number - repeats), default=repeats)


def _bundles(summed: SummedLoss, tilt: float, low: float, high: float, repeats: int) -> tuple[Bundle, ...]:
    """Equal bundles, and bundles of leftover steps."""
    means, variances = summed.step_cumulants(tilt)
    mean, spread = float(summed.times @ means), math.sqrt(float(summed.times @ variances))
    equal = tuple(part.times // repeats for part in summed.parts)
    rest = [part.times % repeats for part in summed.parts]
    bundles = []
    for times, shares in [(repeats, equal), *((1, shares) for shares in _shared_out(rest, equal, variances))]:
        if not any(shares):
            continue
        bundle = Bundle(shares, times, 0.0, 0.0).of(summed)
        own, outside = bundle.mean(tilt), _OUTSIDE + math.log(repeats + _MOST_RESTS)
        # As for a single step: no further from its mean than the sum may be, plus one standard deviation.
        start = max(_edge(bundle, tilt, -1.0, outside), own - (mean - low) - spread, bundle.base)
        end = min(_edge(bundle, tilt, 1.0, outside) + bundle.slack, own + (high - mean) + spread)
        end = max(end, start + _NARROWEST * abs(bundle.base))
        bundles.append(Bundle(shares, times, start, end))
    return tuple(bundles)


def _shared_out(rest: Sequence[int], equal: Sequence[int], variances: Parts) -> list[tuple[int, ...]]:
    """The leftover steps of each kind, in bundles at most twice as wide as the equal ones, if they are not too many."""
    room = max(4 * float(np.asarray(equal) @ variances), float(np.asarray(rest) @ variances) / _MOST_RESTS)
    shared, current, free = [], [0] * len(rest), room
    for kind, variance in enumerate(variances):
        left = rest[kind]
        while left > 0:
            taken = min(left, max(1, math.floor(free / variance))) if variance > 0 else left
            current[kind] += taken
            left -= taken
            free -= taken * variance
            if free < variance:
                shared.append(tuple(current))
                current, free = [0] * len(rest), room
    return [*shared, tuple(current)]
