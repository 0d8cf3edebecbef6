"""One step's privacy loss on a grid, so that the pair of distributions on it dominates the true one.

Each interval's mass goes to its two ends so that its mass is preserved under both P and Q ("connect the dots",
Doroshenko et al., 2022), tilted by exp(θ·loss).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dpmed.privacy.loss.losses import StepLoss, log_normal_density
from dpmed.privacy.loss.quadrature import PANEL, Vector, gauss, quadrature

# Intervals a tenth of the length of a panel need fewer points.
_SHORT_PANEL = 0.1 * PANEL
# Exponents are scaled so that the largest is about 0: reaching this means that the grid is far from the mass.
_LARGEST_EXPONENT = 600.0
_PORTION = 1 << 17


@dataclass(frozen=True)
class Grid:
    """The grid for one step, from its lowest loss upwards.

    Attributes:
        tilt: θ.
        spacing: spacing of the grid.
        first: lowest grid point that the step is put on, counted from its lowest loss.
        last: highest such grid point.
        centre: position of the step's tilted mass above the lowest loss; grid points far from it may be left out.
        widening: how wide the gaps may be, as a fraction of the distance from `centre`.
        widest: how wide they may be at most.
    """

    tilt: float
    spacing: float
    first: int
    last: int
    centre: float = 0.0
    widening: float = 0.0
    widest: float = 0.0

    def used(self) -> np.ndarray:
        """The grid points used, in increasing order from `first` to `last`: fewer where mass is rare."""
        middle = min(max(round(self.centre / self.spacing), self.first), self.last)
        above = middle + self._distances(self.last - middle)
        below = middle - self._distances(middle - self.first)
        return np.concatenate([below[:0:-1], above])

    def _distances(self, end: int) -> np.ndarray:
        """Distances from the middle, 0 to `end`, in grid points."""
        # Gaps of one point until two are allowed, then proportional gaps, then the widest.
        gap = math.floor(min(self.widest / self.spacing, end))
        start = math.ceil(2 / self.widening) if self.widening > 0 else end
        if gap < 2 or start >= end:  # noqa: PLR2004 nothing to leave out
            return np.arange(end + 1)
        full = min(math.ceil(gap / self.widening), end)
        count = max(math.ceil(math.log(full / start) / math.log1p(self.widening)), 1) if full > start else 1
        growing = np.geomspace(start, max(full, start), count + 1).astype(np.int64)
        return _distinct(np.concatenate([np.arange(start), growing, np.arange(full, end, gap), [end]]))


@dataclass(frozen=True, eq=False)
class GridStep:
    """One step's masses on the grid base + j·spacing, tilted, with sum 1.

    Attributes:
        masses: mass of each grid point from `first` on, under P times exp(tilt·loss), divided by exp(log_moment).
        first: number of the first grid point, counted from the step's lowest loss.
        log_moment: the logarithm of their sum before division.
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
    """A tilted step lies off its grid, so nothing can be concluded from this grid."""


Array = Float[np.ndarray, "..."]
Splitter = Callable[[Array, Array | float], Array]


def share_under_p(offset: Array, spacing: Array | float) -> Array:
    """The share of P's mass at `offset` above a grid point that goes to the next one, preserving P's and Q's mass."""
    # (e^offset - 1) / (e^spacing - 1), without overflow.
    return np.exp(offset - spacing) * np.expm1(-offset) / np.expm1(-spacing)


def share_under_q(offset: Array, spacing: Array | float) -> Array:
    """The same split as a share of Q's mass: (1 - e^-offset) / (1 - e^-spacing)."""
    return np.expm1(-offset) / np.expm1(-spacing)


def share_by_place(offset: Array, spacing: Array | float) -> Array:
    """A split that is the same under P and Q: a post-processing of x, so a test on its outcome is a real test."""
    return offset / spacing


def grid_step(step: StepLoss, grid: Grid, *, anchor: float, share: Splitter) -> GridStep:
    """Put one step on a grid.

    Args:
        step: the step.
        grid: the grid.
        anchor: 0 to carry P's mass, 1 to carry Q's; the result is tilted from there by `grid.tilt - anchor`.
        share: how a mass between two grid points is divided.

    Raises:
        OffGridError: the tilted step lies outside the grid, or its masses exceed the range of floats.
    """
    size = grid.last - grid.first + 1
    masses, above, above_p, below = np.zeros(size), 0.0, 0.0, 0.0
    # The largest weight is scaled to 1 by an estimate accurate to a few digits: the weight of the tilted peak.
    carried = quadrature(step)
    exponents = carried.log_mass_p + grid.tilt * carried.losses
    scale = float(exponents.max()) + math.log(float(np.exp(exponents - exponents.max()).sum()))
    used = grid.used()
    for low, high, points in _panels(step, grid, used):
        piece = _place(step, grid, used, low, high, points)
        exponents = piece.log_p + anchor * piece.losses + (grid.tilt - anchor) * piece.bottom - scale
        exponents[piece.is_above] = -np.inf
        # From one grid point to the next. A tilt this steep is no use on any grid: δ is then so small that no loss
        # within reach of the quadrature is rare enough, and the tilt that would be best is infinite.
        rise = (grid.tilt - anchor) * piece.gap
        if max(exponents.max(initial=-np.inf), rise.max(initial=-np.inf)) > _LARGEST_EXPONENT:
            raise OffGridError(grid)
        tilted = np.exp(exponents)
        upper = share(piece.offset, piece.gap)
        masses += np.bincount(piece.column, (tilted * (1 - upper)).sum(axis=1), size)
        masses += np.bincount(piece.following, (tilted * upper * np.exp(rise)).sum(axis=1), size)
        above += float(np.exp((piece.log_p + piece.losses)[piece.is_above]).sum())
        above_p += float(np.exp(piece.log_p[piece.is_above]).sum())
        below += float(np.exp(piece.log_p[piece.is_below]).sum())
    total = float(masses.sum())
    if total <= 0:
        raise OffGridError(grid)
    return GridStep(masses / total, grid.first, scale + math.log(total), above, above_p, below)


@dataclass(frozen=True, eq=False)
class _Piece:
    """Quadrature points and the position of each on the grid."""

    log_p: Float[np.ndarray, "n p"]
    losses: Float[np.ndarray, "n p"]
    column: np.ndarray
    following: np.ndarray
    bottom: Float[np.ndarray, "n 1"]
    gap: Float[np.ndarray, "n 1"]
    offset: Float[np.ndarray, "n p"]
    is_above: np.ndarray
    is_below: np.ndarray


def _place(step: StepLoss, grid: Grid, used: np.ndarray, low: Vector, high: Vector, points: int) -> _Piece:
    base = step.lowest
    x, weights = gauss(low, high, points)
    losses = step.loss(x)
    place = (step.loss(0.5 * (low + high)) - base) / grid.spacing
    cell = np.clip(np.searchsorted(used, place, side="right") - 1, 0, len(used) - 2)
    bottom = (base + used[cell] * grid.spacing)[:, None]
    gap = ((used[cell + 1] - used[cell]) * grid.spacing)[:, None]
    return _Piece(
        log_p=np.log(weights) + log_normal_density(x) + step.log_mass,
        losses=losses,
        column=used[cell] - grid.first,
        following=used[cell + 1] - grid.first,
        bottom=bottom,
        gap=gap,
        offset=np.clip(losses - bottom, 0.0, gap),
        is_above=place >= grid.last,
        is_below=place < grid.first,
    )


def _panels(step: StepLoss, grid: Grid, used: np.ndarray) -> Iterator[tuple[Vector, Vector, int]]:
    """Batches of intervals of x, each within one grid cell, with the number of points that their quadrature needs."""
    inner = step.place(step.lowest + used * grid.spacing)
    inner = inner[np.isfinite(inner)]
    for low, high in step.intervals:
        regular = np.linspace(low, high, math.ceil((high - low) / PANEL) + 1)
        edges = _distinct(np.concatenate([regular, inner[(inner > low) & (inner < high)]]))
        lengths = np.diff(edges)
        for chosen, points in ((lengths > _SHORT_PANEL, 4), (lengths <= _SHORT_PANEL, 2)):
            lows, highs = edges[:-1][chosen], edges[1:][chosen]
            for start in range(0, len(lows), _PORTION):
                portion = slice(start, start + _PORTION)
                yield lows[portion], highs[portion], points


def _distinct(values: np.ndarray) -> np.ndarray:
    """Sorted distinct values. For a few increasing runs, which a stable sort merges, it is faster than `np.unique`."""
    ordered = np.sort(values, kind="stable")
    return ordered[np.concatenate([[True], ordered[1:] > ordered[:-1]])]
