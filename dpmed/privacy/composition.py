"""The summed privacy loss of steps of several kinds: Fourier transforms of grids, and bounds that hold.

One step's loss of each kind is put on a grid of one common spacing, as a pair of distributions that *dominates* the
true pair (`grid`). Dominating pairs stay dominating when composed (Zhu et al., 2022), and when a sum of several steps
is put on a coarser grid in the same way (`window`), so what is read off their composition bounds the truth from above.
The error is of second order in the grid's spacing.

The convolution of T steps is one power of a Fourier transform, and of several kinds a product of powers. Rounding there
is about 1e-16 of the largest mass, far more than the masses that δ = 1e-12 is made of. So all steps are tilted first,
their masses multiplied by exp(θ·loss) with one θ, which moves the sum's peak to the place that is asked about; there
the result is right to some ten digits (Esscher, 1932).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from dpmed.privacy.grid import GridStep, Splitter, grid_step
from dpmed.privacy.quadrature import Vector
from dpmed.privacy.summed import Parts, SummedLoss
from dpmed.privacy.window import Bundle, Window

# A frequency of which e^-50 is left adds nothing to sixteen digits.
_VANISHED = 50.0


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


@dataclass(frozen=True, eq=False)
class _Summed:
    """A sum on a grid: tilted masses from grid point `first` on, counted from its lowest loss."""

    masses: Vector
    first: int
    log_moment: float


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
    found = _bundled(singles, summed, window, anchor, share)
    numbers = found.first + np.arange(len(found.masses))
    return Composed(
        losses=summed.base + numbers * window.spacing,
        masses=found.masses,
        log_scale=found.log_moment,
        tilt=window.tilt - anchor,
        above=np.asarray([single.above for single in singles]),
        above_p=np.asarray([single.above_p for single in singles]),
        below=np.asarray([single.below for single in singles]),
    )


def lost_above(summed: SummedLoss, window: Window) -> float:
    """A bound on the mass under Q of sums in which some bundle was above its window; it is left out."""
    return min(1.0, sum(bundle.repeats * _tail(bundle, summed, sign=1.0) for bundle in window.bundles))


def lost_below(summed: SummedLoss, window: Window) -> float:
    """A bound on the mass under P of sums in which some bundle was below its window; it is left out."""
    return min(1.0, sum(bundle.repeats * _tail(bundle, summed, sign=-1.0) for bundle in window.bundles))


def _tail(bundle: Bundle, summed: SummedLoss, *, sign: float) -> float:
    """Chernoff's bound on a bundle's sum above its window under Q, or below it under P."""
    own = bundle.of(summed)
    if sign > 0:
        return own.chernoff_above(tilt=own.tilt_for_mean(bundle.high, low=1.0), place=bundle.high)
    return own.chernoff_above(tilt=own.tilt_for_mean(bundle.low, high=0.0), place=bundle.low)


def _bundled(
    singles: Sequence[GridStep], summed: SummedLoss, window: Window, anchor: float, share: Splitter
) -> _Summed:
    """The sum of all steps on the window's coarse grid."""
    moments = np.asarray([single.log_moment for single in singles])
    sums = []
    for bundle in window.bundles:
        base = math.fsum(count * part.step.lowest for count, part in zip(bundle.counts, summed.parts, strict=True))
        found = _convolved(singles, bundle.counts, low=bundle.low - base, high=bundle.high - base, spacing=window.fine)
        log_moment = float(np.asarray(bundle.counts) @ moments)
        sums.append(_Summed(found.masses, found.first, log_moment))
    if window.ratio == 1 and len(sums) == 1:
        return sums[0]
    sums = [_coarser(one, window, anchor=anchor, share=share) for one in sums]
    repeats = [bundle.repeats for bundle in window.bundles]
    whole = _convolved(
        sums, repeats, low=window.low - summed.base, high=window.high - summed.base, spacing=window.spacing
    )
    log_moment = math.fsum(times * one.log_moment for times, one in zip(repeats, sums, strict=True))
    return _Summed(whole.masses, whole.first, log_moment)


def _coarser(fine: _Summed, window: Window, *, anchor: float, share: Splitter) -> _Summed:
    """A sum put on the coarse grid, by the same rule as a step on the fine one."""
    ratio, tilt = window.ratio, window.tilt - anchor
    offset = np.arange(ratio) * window.fine
    upper = share(offset, window.spacing)
    # Masses are tilted by the loss of the grid point where they are.
    stay, go = (1 - upper) * np.exp(-tilt * offset), upper * np.exp(tilt * (window.spacing - offset))
    in_front = fine.first % ratio
    rows = -(-(in_front + len(fine.masses)) // ratio)
    padded = np.zeros(rows * ratio)
    padded[in_front : in_front + len(fine.masses)] = fine.masses
    table = padded.reshape(rows, ratio)
    masses = np.zeros(rows + 1)
    masses[:-1] += table @ stay
    masses[1:] += table @ go
    total = float(masses.sum())
    return _Summed(masses / total, fine.first // ratio, fine.log_moment + math.log(total))


def _convolved(
    singles: Sequence[GridStep | _Summed], counts: Sequence[int], *, low: float, high: float, spacing: float
) -> _Summed:
    """The sum of `counts` independent ones of each, from `low` to `high` above its lowest loss."""
    # Two spacings of slack at either end for the rounding of positions.
    first = round(low / spacing) - 2
    size = fft.next_fast_len(math.ceil((high - low) / spacing) + 5, real=True)
    masses = np.maximum(fft.irfft(_product(singles, counts, size), size), 0.0)
    return _Summed(np.roll(masses, -first), first, 0.0)


def _product(singles: Sequence[GridStep | _Summed], counts: Sequence[int], size: int) -> np.ndarray:
    """The product of each spectrum's T-th power, at those frequencies where anything is left: at large T few."""
    result = np.ones(size // 2 + 1, complex)
    for single, count in zip(singles, counts, strict=True):
        if not count:
            continue
        padded = np.zeros(size)
        np.add.at(padded, (single.first + np.arange(len(single.masses))) % size, single.masses)
        spectrum = fft.rfft(padded)
        kept = _squared(spectrum) > math.exp(-2 * _VANISHED / count)
        result[~kept] = 0.0
        result[kept] *= _power(spectrum[kept], count)
        result[_squared(result) <= math.exp(-2 * _VANISHED)] = 0.0
    return result


def _squared(values: np.ndarray) -> Vector:
    return np.square(values.real) + np.square(values.imag)


def _power(values: np.ndarray, count: int) -> np.ndarray:
    """By repeated squaring, which is faster than logarithms and no less exact."""
    result, square = None, values
    while count:
        if count % 2:
            result = square if result is None else result * square
        count //= 2
        square = square * square if count else square
    assert result is not None  # noqa: S101 count >= 1
    return result
