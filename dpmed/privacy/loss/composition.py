"""The summed privacy loss of steps of several kinds: Fourier transforms on grids, with rigorous bounds.

One step's loss of each kind is put on a grid of one common spacing, as a pair of distributions that *dominates* the
true pair (`grid`). Dominating pairs stay dominating when composed (Zhu et al., 2022), also when a sum of several steps
is put on a coarser grid in the same way (`window`), so their composition bounds the true loss from above. The error is
of second order in the grid's spacing.

The convolution of T steps is a power of a Fourier transform; for several kinds, it is a product of powers. Rounding
there is about 1e-16 of the largest mass, far more than the masses that δ = 1e-12 is made of. So all steps are tilted
first, their masses multiplied by exp(θ·loss) with one θ, which moves the peak of the sum to the point of interest;
there the result is accurate to some ten digits (Esscher, 1932).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import fft

from dpmed.privacy.loss.grid import GridStep, Splitter, grid_step
from dpmed.privacy.loss.quadrature import Vector
from dpmed.privacy.loss.summed import Parts, SummedLoss
from dpmed.privacy.loss.window import Bundle, Window

# A frequency attenuated to e^-50 contributes nothing to sixteen digits.
_VANISHED = 50.0
_NOTHING_LEFT = math.exp(-2 * _VANISHED)


@dataclass(frozen=True, eq=False)
class Composed:
    """The sum of all losses on a grid, tilted.

    Attributes:
        losses: the grid.
        masses: tilted masses, with sum 1 up to rounding.
        log_scale: a mass times exp(log_scale - tilt·loss) is the untilted one.
        tilt: θ - anchor, the tilt of `masses` relative to the measure they carry.
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
            # Where the tilted mass is only rounding error, the untilted mass may overflow; it is never used.
            return self.masses * np.exp(np.minimum(log_weights, 700.0))


@dataclass(frozen=True, eq=False)
class _Summed:
    """A sum on a grid: tilted masses from grid point `first` on, counted from its lowest loss."""

    masses: Vector
    first: int
    log_moment: float


class _Product:
    """A product of powers of Fourier transforms, for a sum from `low` to `high` above its lowest loss."""

    def __init__(self, *, low: float, high: float, spacing: float) -> None:
        # Two spacings of slack at either end for the rounding of positions.
        self._first = round(low / spacing) - 2
        self._size = fft.next_fast_len(math.ceil((high - low) / spacing) + 5, real=True)
        self._product = np.ones(self._size // 2 + 1, complex)
        self._log_moment = 0.0

    def add(self, one: GridStep | _Summed, times: int) -> None:
        """Add this many independent copies to the sum."""
        if not times:
            return
        spectrum = fft.rfft(_wrapped(one.masses, one.first % self._size, self._size))
        # Where nothing is left, nothing is computed; for large T that is nearly everywhere.
        kept = (_squared(spectrum) > math.exp(-2 * _VANISHED / times)) & (_squared(self._product) > _NOTHING_LEFT)
        self._product[~kept] = 0.0
        self._product[kept] *= _power(spectrum[kept], times)
        self._log_moment += times * one.log_moment

    def sum(self) -> _Summed:
        """The distribution of the sum."""
        masses = np.maximum(fft.irfft(self._product, self._size), 0.0)
        return _Summed(np.roll(masses, -self._first), self._first, self._log_moment)


def compose(summed: SummedLoss, window: Window, *, anchor: float, share: Splitter) -> Composed:
    """The convolution of all steps on the window's grid.

    Args:
        summed: the steps.
        window: fitted to them.
        anchor: 0 to carry P's mass, 1 to carry Q's.
        share: how a mass between two grid points is divided.

    Raises:
        OffGridError: see `grid_step`.
    """
    bases = np.asarray([part.step.lowest for part in summed.parts])
    products = []
    for bundle in window.bundles:
        base = float(np.asarray(bundle.counts) @ bases)
        products.append(_Product(low=bundle.low - base, high=bundle.high - base, spacing=window.fine))
    off_grid = []
    for number, (part, grid) in enumerate(zip(summed.parts, window.grids, strict=True)):
        single = grid_step(part.step, grid, anchor=anchor, share=share)
        off_grid.append((single.above, single.above_p, single.below))
        for product, bundle in zip(products, window.bundles, strict=True):
            product.add(single, bundle.counts[number])
    found = _whole([product.sum() for product in products], summed, window, anchor=anchor, share=share)
    above, above_p, below = np.asarray(off_grid).T
    return Composed(
        losses=summed.base + (found.first + np.arange(len(found.masses))) * window.spacing,
        masses=found.masses,
        log_scale=found.log_moment,
        tilt=window.tilt - anchor,
        above=above,
        above_p=above_p,
        below=below,
    )


def _whole(sums: Sequence[_Summed], summed: SummedLoss, window: Window, *, anchor: float, share: Splitter) -> _Summed:
    """The sum of all bundles, on the coarse grid."""
    if window.ratio == 1 and len(sums) == 1:
        return sums[0]
    product = _Product(low=window.low - summed.base, high=window.high - summed.base, spacing=window.spacing)
    for one, bundle in zip(sums, window.bundles, strict=True):
        product.add(_coarser(one, window, anchor=anchor, share=share), bundle.repeats)
    return product.sum()


def lost_above(summed: SummedLoss, window: Window) -> float:
    """A bound on the mass under Q of sums with a bundle above its window, which is left out."""
    return min(1.0, sum(bundle.repeats * _tail(bundle, summed, sign=1.0) for bundle in window.bundles))


def lost_below(summed: SummedLoss, window: Window) -> float:
    """A bound on the mass under P of sums with a bundle below its window, which is left out."""
    return min(1.0, sum(bundle.repeats * _tail(bundle, summed, sign=-1.0) for bundle in window.bundles))


def _tail(bundle: Bundle, summed: SummedLoss, *, sign: float) -> float:
    """Chernoff's bound on a bundle's sum above its window under Q, or below it under P."""
    own = bundle.of(summed)
    if sign > 0:
        return own.chernoff_above(tilt=own.tilt_for_mean(bundle.high, low=1.0), place=bundle.high)
    return own.chernoff_above(tilt=own.tilt_for_mean(bundle.low, high=0.0), place=bundle.low)


def _coarser(fine: _Summed, window: Window, *, anchor: float, share: Splitter) -> _Summed:
    """A sum put on the coarse grid, by the same rule as a step on the fine one."""
    ratio, tilt = window.ratio, window.tilt - anchor
    offset = np.arange(ratio) * window.fine
    upper = share(offset, window.spacing)
    # Masses are tilted by the loss at their grid point.
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


def _wrapped(masses: Vector, start: int, size: int) -> Float[np.ndarray, " size"]:
    """Masses from grid point `start` on, on a periodic grid."""
    if start + len(masses) <= size:
        padded = np.zeros(size)
        padded[start : start + len(masses)] = masses
        return padded
    return np.bincount((start + np.arange(len(masses))) % size, masses, size)


def _squared(values: np.ndarray) -> Vector:
    return np.square(values.real) + np.square(values.imag)


def _power(values: np.ndarray, count: int) -> np.ndarray:
    """The power by repeated squaring, which is faster than logarithms and no less accurate."""
    result, square = None, values
    while count:
        if count % 2:
            result = square if result is None else result * square
        count //= 2
        square = square * square if count else square
    assert result is not None  # noqa: S101 count >= 1
    return result
