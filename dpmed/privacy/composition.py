"""The summed privacy loss of steps of several kinds: a grid fitted to it, Fourier transforms, and bounds that hold.

One step's loss of each kind is put on a grid of one common spacing, as a pair of distributions that *dominates* the
true pair (`grid`). Dominating pairs stay dominating when composed (Zhu et al., 2022), so what is read off their
composition bounds the truth from above, and the error is of second order in the grid's spacing.

The convolution of T steps is one power of a Fourier transform, and of several kinds a product of powers. Rounding there
is about 1e-16 of the largest mass, far more than the masses that δ = 1e-12 is made of. So all steps are tilted first,
their masses multiplied by exp(θ·loss) with one θ, which moves the sum's peak to the place that is asked about; there
the result is right to some ten digits (Esscher, 1932).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import fft

from dpmed.privacy.grid import Grid, GridStep, Splitter, grid_step
from dpmed.privacy.quadrature import Vector
from dpmed.privacy.summed import Parts, SummedLoss

# What of the tilted sum may lie outside the window: e^-41 = 1.6e-18. Less strictly e^-22 on the side behind the answer,
# from where it comes back at the far end, discounted by e^-30; and e^-15 on the side beyond it, once masses there are
# discounted by e^-30. What comes back only ever adds to δ.
_OUTSIDE, _OUTSIDE_BEHIND, _OUTSIDE_BEYOND, _DISCOUNTED = 41.0, 22.0, 15.0, 30.0
_SMALLEST_GRID, _LARGEST_GRID = 1 << 12, 1 << 21
# A frequency of which e^-50 is left adds nothing to sixteen digits.
_VANISHED = 50.0
_NARROWEST = 1e-7

Side = Literal["above", "below", "both"]


@dataclass(frozen=True)
class Window:
    """Where the tilted sum of all losses lives, and how finely it is looked at.

    Attributes:
        tilt: θ.
        low: the window's lower end.
        spacing: of the grid.
        size: points of the grid.
        grids: for each kind of step, the grid that one of them is put on.
    """

    tilt: float
    low: float
    spacing: float
    size: int
    grids: tuple[Grid, ...]


def fit_window(
    summed: SummedLoss, *, tilt: float, variance_error: float, side: Side, spacing: float = math.inf
) -> Window:
    """A window that holds what matters of the tilted sum, on a grid fine enough.

    Args:
        summed: the steps.
        tilt: θ.
        variance_error: how much variance the grid may add to the sum, tilted.
        side: where untilted masses will be summed: `above` the tilted mean, under Q (there untilting discounts by
            θ - 1), `below` it, under P (discount -θ), or both.
        spacing: the widest spacing allowed; in a single step's tail the added variance does not tell the error.

    Returns:
        The coarsest power of two of points that keeps to `variance_error`, or the largest grid there is.
    """
    low, high = _ends(summed, tilt, side)
    bases = np.asarray([part.step.lowest for part in summed.parts])
    weights = summed.times[:, None] * summed.step_weights(tilt)
    size = _SMALLEST_GRID
    while True:
        # Two spacings of slack at either end for the rounding of positions.
        grid_spacing = max(high - low, 1e-300) / (size - 4)
        offset = np.remainder(summed.losses - bases[:, None], grid_spacing)
        added = float((weights * offset * (grid_spacing - offset)).sum())
        if (added <= variance_error and grid_spacing <= spacing) or size >= _LARGEST_GRID:
            return Window(tilt, low, grid_spacing, size, _grids(summed, tilt, low, high, grid_spacing))
        size *= 2


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
    # Where next to all mass is in one point, its rounding must not become the scale of the grid.
    return low, max(high, low + _NARROWEST * abs(summed.base))


def _grids(summed: SummedLoss, tilt: float, low: float, high: float, spacing: float) -> tuple[Grid, ...]:
    """Where each step is put: it leaves its mean no further than the sum may, plus one spread of slack."""
    means, variances = summed.step_cumulants(tilt)
    mean, spread = float(summed.times @ means), math.sqrt(float(summed.times @ variances))
    grids = []
    for part, own in zip(summed.parts, means, strict=True):
        first = (own - (mean - low) - spread - part.step.lowest) / spacing
        last = (own + (high - mean) + spread - part.step.lowest) / spacing
        grids.append(Grid(tilt, spacing, max(0, math.floor(first)), max(1, math.ceil(last))))
    return tuple(grids)


def _edge(summed: SummedLoss, tilt: float, sign: float, outside: float) -> float:
    """Chernoff's bound on where all but e^-outside of the tilted sum ends, the best over some exponents."""
    best = math.inf
    moment, _, variance = summed.cumulants(tilt)
    spread = math.sqrt(variance)
    for scale in np.geomspace(0.05, 20.0, 10):
        extra = scale * math.sqrt(2 * outside) / max(spread, 1e-300)
        if not math.isfinite(extra):
            continue
        bound = (summed.log_moment(tilt + sign * extra) - moment + outside) / extra
        best = min(best, bound)
    return sign * best


@dataclass(frozen=True, eq=False)
class Composed:
    """The sum of all losses on a grid, tilted.

    Attributes:
        losses: the grid.
        masses: tilted masses, with sum 1 up to rounding.
        log_scale: a mass times exp(log_scale - tilt·loss) is the untilted one.
        tilt: θ - anchor: what `masses` were tilted by from the measure they carry.
        above: for one step of each kind, its mass under Q above the grid; it is left out.
        above_p: the same under P.
        below: its mass under P below the grid.
    """

    losses: Vector
    masses: Vector
    log_scale: float
    tilt: float
    above: Parts
    above_p: Parts
    below: Parts

    def untilted(self, exponent: float = 0.0) -> Vector:
        """The masses of the measure carried, times exp(exponent·loss)."""
        with np.errstate(under="ignore"):
            log_weights = self.log_scale + (exponent - self.tilt) * self.losses
            # Where the tilted mass is rounding only, its untilted one may overflow: it is not asked for.
            return self.masses * np.exp(np.minimum(log_weights, 700.0))


def compose(summed: SummedLoss, window: Window, *, anchor: float, share: Splitter) -> Composed:
    """The convolution of all steps, each put on the window's grid.

    Args:
        summed: the steps.
        window: fitted to them.
        anchor: 0 to carry P's mass, 1 to carry Q's.
        share: how a mass between two grid points is divided.

    Raises:
        OffGridError: see `grid_step`.
    """
    singles = [
        grid_step(part.step, grid, anchor=anchor, share=share)
        for part, grid in zip(summed.parts, window.grids, strict=True)
    ]
    masses = np.maximum(fft.irfft(_product(singles, summed, window.size), window.size), 0.0)
    first = round((window.low - summed.base) / window.spacing) - 2

    return Composed(
        losses=summed.base + (first + np.arange(window.size)) * window.spacing,
        masses=np.roll(masses, -first),
        log_scale=float(summed.times @ np.asarray([single.log_moment for single in singles])),
        tilt=window.tilt - anchor,
        above=np.asarray([single.above for single in singles]),
        above_p=np.asarray([single.above_p for single in singles]),
        below=np.asarray([single.below for single in singles]),
    )


def _product(singles: list[GridStep], summed: SummedLoss, size: int) -> np.ndarray:
    """The product of each spectrum's T-th power, at those frequencies where anything is left: at large T few."""
    log_spectrum = np.zeros(size // 2 + 1, complex)
    kept = np.ones(len(log_spectrum), bool)
    for single, part in zip(singles, summed.parts, strict=True):
        padded = np.zeros(size)
        np.add.at(padded, (single.first + np.arange(len(single.masses))) % size, single.masses)
        spectrum = fft.rfft(padded)
        kept &= np.square(spectrum.real) + np.square(spectrum.imag) > math.exp(-2 * _VANISHED / part.times)
        log_spectrum[kept] += part.times * np.log(spectrum[kept])
        kept &= log_spectrum.real > -_VANISHED
    result = np.zeros_like(log_spectrum)
    result[kept] = np.exp(log_spectrum[kept])
    return result
