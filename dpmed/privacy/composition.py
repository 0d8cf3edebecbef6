"""The privacy loss of T steps: a grid fitted to their sum, one Fourier transform, and bounds that hold.

One step's loss is put on a grid so that the pair of distributions on it *dominates* the true pair: each interval's mass
goes to its two ends such that its mass under P and under Q both stay what they were ("connect the dots", Doroshenko et
al., 2022). Dominating pairs stay dominating when composed (Zhu et al., 2022), so what is read off their composition
bounds the truth from above, and the error is of second order in the grid's spacing.

The T-fold convolution is one power of a Fourier transform. Rounding there is about 1e-16 of the largest mass, far more
than the masses that δ = 1e-12 is made of. So the step is tilted first, its masses multiplied by exp(θ·loss), which
moves the sum's peak to the place that is asked about; there the result is right to some ten digits (Esscher, 1932).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy import fft

from dpmed.privacy.losses import StepLoss, log_normal_density
from dpmed.privacy.quadrature import PANEL, Quadrature, Vector, gauss, quadrature

# What of the tilted sum may lie outside the window: e^-41 = 1.6e-18. Less strictly e^-22 on the side behind the answer,
# from where it comes back at the far end, discounted by e^-30; and e^-15 on the side beyond it, once masses there are
# discounted by e^-30. What comes back only ever adds to δ.
_OUTSIDE, _OUTSIDE_BEHIND, _OUTSIDE_BEYOND, _DISCOUNTED = 41.0, 22.0, 15.0, 30.0
_SMALLEST_GRID, _LARGEST_GRID = 1 << 12, 1 << 21
# A frequency of which e^-50 is left adds nothing to sixteen digits.
_VANISHED = 50.0
# Intervals a tenth as long as a panel need fewer points.
_SHORT_PANEL = 0.1 * PANEL
# Exponents are scaled so that about 0 is the largest: what reaches this was put on a grid far from its own place.
_LARGEST_EXPONENT = 600.0
_NARROWEST = 1e-7
_PORTION = 1 << 17


@dataclass(frozen=True)
class Window:
    """Where the tilted sum of T losses lives, and how finely it is looked at.

    Attributes:
        tilt: θ.
        low: the window's lower end.
        spacing: of the grid.
        size: points of the grid.
        first: lowest grid point that a single step is put on, counted from its lowest loss.
        last: highest such grid point.
    """

    tilt: float
    low: float
    spacing: float
    size: int
    first: int
    last: int


Side = Literal["above", "below", "both"]


def fit_window(
    points: Quadrature,
    *,
    base: float,
    steps: int,
    tilt: float,
    variance_error: float,
    side: Side,
    spacing: float = math.inf,
) -> Window:
    """A window that holds what matters of the tilted sum, on a grid fine enough.

    Args:
        points: of one step.
        base: the step's lowest loss, where the grid begins.
        steps: T.
        tilt: θ.
        variance_error: how much variance the grid may add to one step, tilted.
        side: where untilted masses will be summed: `above` the tilted mean, under Q (there untilting discounts by
            θ - 1), `below` it, under P (discount -θ), or both.
        spacing: the widest spacing allowed; in a single step's tail the added variance does not tell the error.

    Returns:
        The coarsest power of two of points that keeps to `variance_error`, or the largest grid there is.
    """
    moment, mean, variance = points.cumulants(tilt)
    spread = math.sqrt(steps * variance)
    behind = {"above": (_OUTSIDE_BEHIND, _OUTSIDE), "below": (_OUTSIDE, _OUTSIDE_BEHIND), "both": (_OUTSIDE, _OUTSIDE)}
    low, high = (
        _edge(points, steps, tilt, sign, outside) for sign, outside in zip((-1.0, 1.0), behind[side], strict=True)
    )
    if side == "above" and tilt > 1:
        enough = max(steps * mean + _DISCOUNTED / (tilt - 1), _edge(points, steps, tilt, 1.0, _OUTSIDE_BEYOND))
        high = min(high, enough)
    if side == "below" and tilt < 0:
        enough = min(steps * mean - _DISCOUNTED / -tilt, _edge(points, steps, tilt, -1.0, _OUTSIDE_BEYOND))
        low = max(low, enough)
    low, high = max(low, steps * base), high + points.slack
    # Where next to all mass is in one point, its rounding must not become the scale of the grid.
    high = max(high, low + _NARROWEST * abs(base))
    weights = np.exp(points.log_mass_p + tilt * points.losses - moment)
    size = _SMALLEST_GRID
    while True:
        # Two spacings of slack at either end for the rounding of positions.
        grid_spacing = max(high - low, 1e-300) / (size - 4)
        offset = np.remainder(points.losses - base, grid_spacing)
        added = float(weights @ (offset * (grid_spacing - offset)))
        if (added <= variance_error and grid_spacing <= spacing) or size >= _LARGEST_GRID:
            # One step leaves its mean no further than the sum may, plus one spread of slack.
            first = (mean - (steps * mean - low) - spread - base) / grid_spacing
            last = (mean + (high - steps * mean) + spread - base) / grid_spacing
            return Window(tilt, low, grid_spacing, size, max(0, math.floor(first)), max(1, math.ceil(last)))
        size *= 2


def _edge(points: Quadrature, steps: int, tilt: float, sign: float, outside: float) -> float:
    """Chernoff's bound on where all but e^-outside of the tilted sum ends, the best over some exponents."""
    best = math.inf
    moment, _, variance = points.cumulants(tilt)
    spread = math.sqrt(steps * variance)
    for scale in np.geomspace(0.05, 20.0, 10):
        extra = scale * math.sqrt(2 * outside) / max(spread, 1e-300)
        if not math.isfinite(extra):
            continue
        bound = (steps * (points.log_moment(tilt + sign * extra) - moment) + outside) / extra
        best = min(best, bound)
    return sign * best


@dataclass(frozen=True, eq=False)
class GridStep:
    """One step's masses on the grid base + j·spacing, tilted, with sum 1.

    Attributes:
        masses: of each grid point from `first` on, under P times exp(tilt·loss), divided by exp(log_moment).
        first: number of the first grid point, counted from the step's lowest loss.
        log_moment: the logarithm of what they summed to.
        above: mass under Q of losses above the grid, which are left out.
        above_p: their mass under P.
        below: mass under P of losses below the grid, which are put on its first point.
    """

    masses: Vector
    first: int
    log_moment: float
    above: float
    above_p: float
    below: float


class OffGridError(ArithmeticError):
    """A tilted step is not where its grid is, so that nothing can be said on this grid."""


Splitter = Callable[[Float[np.ndarray, "..."], float], Float[np.ndarray, "..."]]


def share_under_p(offset: Float[np.ndarray, "..."], spacing: float) -> Float[np.ndarray, "..."]:
    """What share of P's mass at `offset` above a grid point goes to the next, so that P's and Q's mass both stay."""
    # (e^offset - 1) / (e^spacing - 1), without overflow.
    return np.exp(offset - spacing) * np.expm1(-offset) / np.expm1(-spacing)


def share_under_q(offset: Float[np.ndarray, "..."], spacing: float) -> Float[np.ndarray, "..."]:
    """The same split as a share of Q's mass: (1 - e^-offset) / (1 - e^-spacing)."""
    return np.expm1(-offset) / np.expm1(-spacing)


def share_by_place(offset: Float[np.ndarray, "..."], spacing: float) -> Float[np.ndarray, "..."]:
    """A split that is the same under P and Q: a post-processing of x, so a test on its outcome is a real test."""
    return offset / spacing


def grid_step(step: StepLoss, window: Window, *, anchor: float, share: Splitter) -> GridStep:
    """Put one step on the window's grid.

    Args:
        step: the step.
        window: gives tilt and grid.
        anchor: 0 to carry P's mass, 1 to carry Q's; the result is tilted from there by `window.tilt - anchor`.
        share: how a mass between two grid points is divided.

    Raises:
        OffGridError: the tilted step lies outside the grid, or its masses are beyond what floats hold.
    """
    size = window.last - window.first + 1
    masses, above, above_p, below = np.zeros(size), 0.0, 0.0, 0.0
    # The largest weight is scaled to 1 by a guess that is right to a few digits: the tilted peak's.
    scale = quadrature(step).log_moment(window.tilt)
    for low, high, points in _panels(step, window):
        piece = _place(step, window, low, high, points)
        exponents = piece.log_p + anchor * piece.losses + (window.tilt - anchor) * piece.grid - scale
        exponents[piece.is_above] = -np.inf
        if exponents.max(initial=-np.inf) > _LARGEST_EXPONENT:
            raise OffGridError(window)
        tilted = np.exp(exponents)
        upper = share(piece.offset, window.spacing)
        masses += np.bincount(piece.column, (tilted * (1 - upper)).sum(axis=1), size)
        step_up = math.exp((window.tilt - anchor) * window.spacing)
        masses += np.bincount(piece.column + 1, (tilted * upper).sum(axis=1) * step_up, size)
        above += float(np.exp((piece.log_p + piece.losses)[piece.is_above]).sum())
        above_p += float(np.exp(piece.log_p[piece.is_above]).sum())
        below += float(np.exp(piece.log_p[piece.is_below]).sum())
    total = float(masses.sum())
    if total <= 0:
        raise OffGridError(window)
    return GridStep(masses / total, window.first, scale + math.log(total), above, above_p, below)


@dataclass(frozen=True, eq=False)
class _Piece:
    """Quadrature points and where on the grid each belongs."""

    log_p: Float[np.ndarray, "n p"]
    losses: Float[np.ndarray, "n p"]
    column: np.ndarray
    grid: Float[np.ndarray, "n 1"]
    offset: Float[np.ndarray, "n p"]
    is_above: np.ndarray
    is_below: np.ndarray


def _place(step: StepLoss, window: Window, low: Vector, high: Vector, points: int) -> _Piece:
    spacing, base = window.spacing, step.lowest
    x, weights = gauss(low, high, points)
    losses = step.loss(x)
    place = np.floor((step.loss(0.5 * (low + high)) - base) / spacing)
    column = np.clip(place, window.first, window.last - 1).astype(np.int64)
    grid = (base + column * spacing)[:, None]
    return _Piece(
        log_p=np.log(weights) + log_normal_density(x) + step.log_mass,
        losses=losses,
        column=column - window.first,
        grid=grid,
        offset=np.clip(losses - grid, 0.0, spacing),
        is_above=place >= window.last,
        is_below=place < window.first,
    )


def _panels(step: StepLoss, window: Window) -> Iterator[tuple[Vector, Vector, int]]:
    """Intervals of x, each within one cell of the grid, in portions, with how many points their quadrature needs."""
    for low, high in step.intervals:
        ends = step.loss(np.asarray([low, high]))
        cells = (ends - step.lowest) / window.spacing
        first, last = max(math.floor(cells[0]), window.first), min(math.ceil(cells[1]), window.last)
        inner = step.place(step.lowest + np.arange(first, last + 1) * window.spacing)
        regular = np.linspace(low, high, math.ceil((high - low) / PANEL) + 1)
        edges = np.unique(np.concatenate([regular, inner[np.isfinite(inner) & (inner > low) & (inner < high)]]))
        lengths = np.diff(edges)
        for chosen, points in ((lengths > _SHORT_PANEL, 4), (lengths <= _SHORT_PANEL, 2)):
            lows, highs = edges[:-1][chosen], edges[1:][chosen]
            for start in range(0, len(lows), _PORTION):
                portion = slice(start, start + _PORTION)
                yield lows[portion], highs[portion], points


@dataclass(frozen=True, eq=False)
class Composed:
    """The sum of T losses on a grid, tilted.

    Attributes:
        losses: the grid.
        masses: tilted masses, with sum 1 up to rounding.
        log_scale: a mass times exp(log_scale - exponent·loss) is the untilted one, see `masses_of`.
        tilt: θ - anchor: what `masses` were tilted by from the measure they carry.
        above: bound on the mass under Q of sums in which a step was above the grid; they are left out.
        above_p: the same under P.
        below: bound on the mass under P of sums in which a step was below the grid.
    """

    losses: Vector
    masses: Vector
    log_scale: float
    tilt: float
    above: float
    above_p: float
    below: float

    def untilted(self, exponent: float = 0.0) -> Vector:
        """The masses of the measure carried, times exp(exponent·loss)."""
        with np.errstate(under="ignore"):
            log_weights = self.log_scale + (exponent - self.tilt) * self.losses
            # Where the tilted mass is rounding only, its untilted one may overflow: it is not asked for.
            return self.masses * np.exp(np.minimum(log_weights, 700.0))


def compose(step: GridStep, window: Window, *, base: float, steps: int, anchor: float) -> Composed:
    """The T-fold convolution of a step that is on the window's grid."""
    padded = np.zeros(window.size)
    np.add.at(padded, (step.first + np.arange(len(step.masses))) % window.size, step.masses)
    spectrum = fft.rfft(padded)
    masses = np.maximum(fft.irfft(_power(spectrum, steps), window.size), 0.0)
    first = round((window.low - steps * base) / window.spacing) - 2
    losses = steps * base + (first + np.arange(window.size)) * window.spacing
    return Composed(
        losses=losses,
        masses=np.roll(masses, -first),
        log_scale=steps * step.log_moment,
        tilt=window.tilt - anchor,
        above=steps * step.above,
        above_p=steps * step.above_p,
        below=steps * step.below,
    )


def _power(spectrum: np.ndarray, steps: int) -> np.ndarray:
    """The T-th power, for those frequencies where anything is left of it: at large T these are few."""
    result = np.zeros_like(spectrum)
    squares = np.square(spectrum.real) + np.square(spectrum.imag)
    kept = squares > math.exp(-2 * _VANISHED / steps)
    result[kept] = np.exp(steps * np.log(spectrum[kept]))
    return result
