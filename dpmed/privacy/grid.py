"""One step's privacy loss on a grid, so that the pair of distributions on it dominates the true one.

Each interval's mass goes to its two ends such that its mass under P and under Q both stay what they were ("connect the
dots", Doroshenko et al., 2022), tilted by exp(θ·loss).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dpmed.privacy.losses import StepLoss, log_normal_density
from dpmed.privacy.quadrature import PANEL, Vector, gauss
from dpmed.privacy.summed import Repeated, summed_loss

# Intervals a tenth as long as a panel need fewer points.
_SHORT_PANEL = 0.1 * PANEL
# Exponents are scaled so that about 0 is the largest: what reaches this was put on a grid far from its own place.
_LARGEST_EXPONENT = 600.0
_PORTION = 1 << 17


@dataclass(frozen=True)
class Grid:
    """Where one step is put, from its lowest loss upwards.

    Attributes:
        tilt: θ.
        spacing: of the grid.
        first: lowest grid point that the step is put on, counted from its lowest loss.
        last: highest such grid point.
    """

    tilt: float
    spacing: float
    first: int
    last: int


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


def grid_step(step: StepLoss, grid: Grid, *, anchor: float, share: Splitter) -> GridStep:
    """Put one step on a grid.

    Args:
        step: the step.
        grid: which.
        anchor: 0 to carry P's mass, 1 to carry Q's; the result is tilted from there by `grid.tilt - anchor`.
        share: how a mass between two grid points is divided.

    Raises:
        OffGridError: the tilted step lies outside the grid, or its masses are beyond what floats hold.
    """
    size = grid.last - grid.first + 1
    masses, above, above_p, below = np.zeros(size), 0.0, 0.0, 0.0
    # The largest weight is scaled to 1 by a guess that is right to a few digits: the tilted peak's.
    scale = summed_loss((Repeated(step, 1),)).log_moment(grid.tilt)
    for low, high, points in _panels(step, grid):
        piece = _place(step, grid, low, high, points)
        exponents = piece.log_p + anchor * piece.losses + (grid.tilt - anchor) * piece.bottom - scale
        exponents[piece.is_above] = -np.inf
        if exponents.max(initial=-np.inf) > _LARGEST_EXPONENT:
            raise OffGridError(grid)
        tilted = np.exp(exponents)
        upper = share(piece.offset, grid.spacing)
        masses += np.bincount(piece.column, (tilted * (1 - upper)).sum(axis=1), size)
        step_up = math.exp((grid.tilt - anchor) * grid.spacing)
        masses += np.bincount(piece.column + 1, (tilted * upper).sum(axis=1) * step_up, size)
        above += float(np.exp((piece.log_p + piece.losses)[piece.is_above]).sum())
        above_p += float(np.exp(piece.log_p[piece.is_above]).sum())
        below += float(np.exp(piece.log_p[piece.is_below]).sum())
    total = float(masses.sum())
    if total <= 0:
        raise OffGridError(grid)
    return GridStep(masses / total, grid.first, scale + math.log(total), above, above_p, below)


@dataclass(frozen=True, eq=False)
class _Piece:
    """Quadrature points and where on the grid each belongs."""

    log_p: Float[np.ndarray, "n p"]
    losses: Float[np.ndarray, "n p"]
    column: np.ndarray
    bottom: Float[np.ndarray, "n 1"]
    offset: Float[np.ndarray, "n p"]
    is_above: np.ndarray
    is_below: np.ndarray


def _place(step: StepLoss, grid: Grid, low: Vector, high: Vector, points: int) -> _Piece:
    spacing, base = grid.spacing, step.lowest
    x, weights = gauss(low, high, points)
    losses = step.loss(x)
    place = np.floor((step.loss(0.5 * (low + high)) - base) / spacing)
    column = np.clip(place, grid.first, grid.last - 1).astype(np.int64)
    bottom = (base + column * spacing)[:, None]
    return _Piece(
        log_p=np.log(weights) + log_normal_density(x) + step.log_mass,
        losses=losses,
        column=column - grid.first,
        bottom=bottom,
        offset=np.clip(losses - bottom, 0.0, spacing),
        is_above=place >= grid.last,
        is_below=place < grid.first,
    )


def _panels(step: StepLoss, grid: Grid) -> Iterator[tuple[Vector, Vector, int]]:
    """Intervals of x, each within one cell of the grid, in portions, with how many points their quadrature needs."""
    for low, high in step.intervals:
        ends = step.loss(np.asarray([low, high]))
        cells = (ends - step.lowest) / grid.spacing
        first, last = max(math.floor(cells[0]), grid.first), min(math.ceil(cells[1]), grid.last)
        inner = step.place(step.lowest + np.arange(first, last + 1) * grid.spacing)
        regular = np.linspace(low, high, math.ceil((high - low) / PANEL) + 1)
        edges = np.unique(np.concatenate([regular, inner[np.isfinite(inner) & (inner > low) & (inner < high)]]))
        lengths = np.diff(edges)
        for chosen, points in ((lengths > _SHORT_PANEL, 4), (lengths <= _SHORT_PANEL, 2)):
            lows, highs = edges[:-1][chosen], edges[1:][chosen]
            for start in range(0, len(lows), _PORTION):
                portion = slice(start, start + _PORTION)
                yield lows[portion], highs[portion], points
