"""The privacy loss of T steps: a grid fitted to their sum, one Fourier transform, and bounds that hold.

One step's loss is put on a grid so that the pair of distributions on it *dominates* the true pair: each interval's mass
goes to its two ends such that its mass under P and under Q both stay what they were ("connect the dots", Doroshenko et
al., 2022). Dominating pairs stay dominating when composed (Zhu et al., 2022), so what is read off their composition
bounds the truth from above, and the error is of second order in the grid's spacing.

The T-fold convolution is one power of a Fourier transform. Rounding there is about 1e-16 of the largest mass, far more
than the masses that δ = 1e-12 is made of. So the step is tilted first, its masses multiplied by exp(θ·loss), which moves
the sum's peak to the place that is asked about; there the result is right to some ten digits (Esscher, 1932).

Source of the tilt's choice: the saddle point of Chernoff's bound, log P(sum >= s) <= T K(θ) - θ s with T K'(θ) = s.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import fft, optimize

from dpmed.privacy.losses import StepLoss, log_normal_density

Vector = Float[np.ndarray, " n"]

# What of the tilted sum may lie outside the window: e^-41 = 1.6e-18.
_OUTSIDE = 41.0
_SMALLEST_GRID, _LARGEST_GRID = 1 << 12, 1 << 21
_PANEL = 0.25
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)
_LARGEST_TILT = 1e9


@dataclass(frozen=True, eq=False)
class Quadrature:
    """One step's loss at points that carry its mass: for moments and tilts.

    Attributes:
        losses: L at each point.
        log_mass_p: log of the mass under P.
    """

    losses: Vector
    log_mass_p: Vector

    def cumulants(self, tilt: float) -> tuple[float, float, float]:
        """K(θ) = log E_P exp(θL) and its first two derivatives."""
        log_weights = self.log_mass_p + tilt * self.losses
        largest = float(log_weights.max())
        weights = np.exp(log_weights - largest)
        total = float(weights.sum())
        mean = float(weights @ self.losses) / total
        variance = float(weights @ np.square(self.losses - mean)) / total
        return self.log_moment(tilt), mean, variance

    def log_moment(self, tilt: float) -> float:
        """K(θ), precise also where it is near zero."""
        # K(0) = K(1) = 0. Near either end the sum of expm1 keeps the digits that a logarithm of about 1 would lose.
        anchor = 0.0 if tilt < 0.5 else 1.0  # noqa: PLR2004 the middle
        exponent = (tilt - anchor) * self.losses
        log_mass = self.log_mass_p + anchor * self.losses
        if float(np.max(np.abs(exponent) * (log_mass > -_OUTSIDE))) < 1:
            return math.log1p(float(np.exp(log_mass) @ np.expm1(exponent)))
        both = log_mass + exponent
        largest = float(both.max())
        return largest + math.log(float(np.exp(both - largest).sum()))


@lru_cache(maxsize=64)
def quadrature(step: StepLoss) -> Quadrature:
    """Gauss-Legendre points over the step's support."""
    edges = [np.linspace(low, high, max(2, math.ceil((high - low) / _PANEL) + 1)) for low, high in step.intervals]
    points, weights = _gauss(np.concatenate([e[:-1] for e in edges]), np.concatenate([e[1:] for e in edges]))
    log_mass = np.log(weights) + log_normal_density(points) + step.log_mass
    return Quadrature(step.loss(points).ravel(), log_mass.ravel())


def _gauss(low: Vector, high: Vector) -> tuple[Float[np.ndarray, "n 4"], Float[np.ndarray, "n 4"]]:
    half = 0.5 * (high - low)[:, None]
    return (0.5 * (low + high))[:, None] + half * _NODES, half * _WEIGHTS


@dataclass(frozen=True)
class Window:
    """Where the tilted sum of T losses lives, and how finely it is looked at.

    Attributes:
        tilt: θ.
        low: the window's lower end.
        spacing: of the grid.
        size: points of the grid.
    """

    tilt: float
    low: float
    spacing: float
    size: int


def fit_window(points: Quadrature, *, base: float, steps: int, tilt: float, variance_error: float) -> Window:
    """A window that holds the tilted sum, on a grid fine enough.

    Args:
        points: of one step.
        base: the step's lowest loss, where the grid begins.
        steps: T.
        tilt: θ.
        variance_error: how much variance the grid may add to one step, tilted.

    Returns:
        The coarsest power of two of points that keeps to `variance_error`, or the largest grid there is.
    """
    moment, _, variance = points.cumulants(tilt)
    spread = math.sqrt(steps * variance)
    low, high = (_edge(points, steps, tilt, moment, spread, sign) for sign in (-1.0, 1.0))
    low = max(low, steps * base)
    weights = np.exp(points.log_mass_p + tilt * points.losses - moment)
    size = _SMALLEST_GRID
    while True:
        # Two spacings of slack at either end for the rounding of positions.
        spacing = max(high - low, 1e-300) / (size - 4)
        offset = np.remainder(points.losses - base, spacing)
        added = float(weights @ (offset * (spacing - offset)))
        if added <= variance_error or size >= _LARGEST_GRID:
            return Window(tilt, low, spacing, size)
        size *= 2


def _edge(points: Quadrature, steps: int, tilt: float, moment: float, spread: float, sign: float) -> float:
    """Chernoff's bound on where the tilted sum ends, the best over some exponents."""
    best = math.inf
    for scale in np.geomspace(0.05, 20.0, 10):
        extra = scale * math.sqrt(2 * _OUTSIDE) / max(spread, 1e-300)
        if not math.isfinite(extra):
            continue
        bound = (steps * (points.log_moment(tilt + sign * extra) - moment) + _OUTSIDE) / extra
        best = min(best, bound)
    return sign * best


@dataclass(frozen=True, eq=False)
class GridStep:
    """One step's masses on the grid base + j·spacing, tilted, with sum 1.

    Attributes:
        masses: of each grid point, under P times exp(tilt·loss), divided by exp(log_moment).
        log_moment: the logarithm of what they summed to.
        above: mass under Q of losses beyond the grid.
    """

    masses: Vector
    log_moment: float
    above: float


Splitter = Callable[[Float[np.ndarray, "..."], float], Float[np.ndarray, "..."]]


def share_under_p(offset: Float[np.ndarray, "..."], spacing: float) -> Float[np.ndarray, "..."]:
    """What share of P's mass at `offset` above a grid point goes to the next one, so that P's and Q's mass both stay."""
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
    """
    spacing, base = window.spacing, step.lowest
    low, high = _panels(step, window)
    points, weights = _gauss(low, high)
    losses = step.loss(points)
    middle = step.loss(0.5 * (low + high))
    column = np.maximum(np.floor((middle - base) / spacing), 0).astype(np.int64)
    offset = np.clip(losses - (base + column[:, None] * spacing), 0.0, spacing)
    log_mass = np.log(weights) + log_normal_density(points) + step.log_mass + anchor * losses
    inside = column < window.size - 1
    above = float(np.exp(log_mass[~inside] + (1 - anchor) * losses[~inside]).sum())
    log_mass, offset, column = log_mass[inside], offset[inside], column[inside]
    upper = share(offset, spacing)
    grid = base + column[:, None] * spacing
    extra = window.tilt - anchor
    largest = float((log_mass + extra * grid).max())
    tilted = np.exp(log_mass + extra * grid - largest)
    size = int(column.max()) + 2
    masses = np.bincount(column, (tilted * (1 - upper)).sum(axis=1), size)
    masses += np.bincount(column + 1, (tilted * upper).sum(axis=1) * math.exp(extra * spacing), size)
    total = float(masses.sum())
    return GridStep(masses / total, largest + math.log(total), above)


def _panels(step: StepLoss, window: Window) -> tuple[Vector, Vector]:
    """Intervals of x that lie within one cell of the grid each and are short enough for the quadrature."""
    lows, highs = [], []
    for low, high in step.intervals:
        ends = step.loss(np.asarray([low, high]))
        cells = (ends - step.lowest) / window.spacing
        first, last = max(0.0, math.floor(cells[0])), min(math.ceil(cells[1]), window.size + 1.0)
        inner = step.place(step.lowest + np.arange(first, last) * window.spacing)
        regular = np.linspace(low, high, math.ceil((high - low) / _PANEL) + 1)
        edges = np.unique(np.concatenate([regular, inner[np.isfinite(inner) & (inner > low) & (inner < high)]]))
        lows.append(edges[:-1])
        highs.append(edges[1:])
    return np.concatenate(lows), np.concatenate(highs)


@dataclass(frozen=True, eq=False)
class Composed:
    """The sum of T losses on a grid, tilted.

    Attributes:
        losses: the grid.
        masses: tilted masses, with sum 1 up to rounding.
        log_scale: a mass times exp(log_scale - exponent·loss) is the untilted one, see `masses_of`.
        tilt: θ - anchor: what `masses` were tilted by from the measure they carry.
        above: bound on the mass under Q of sums that left the grid through one step.
    """

    losses: Vector
    masses: Vector
    log_scale: float
    tilt: float
    above: float

    def untilted(self, exponent: float = 0.0) -> Vector:
        """The masses of the measure carried, times exp(exponent·loss)."""
        with np.errstate(under="ignore"):
            log_weights = self.log_scale + (exponent - self.tilt) * self.losses
            # Where the tilted mass is rounding only, its untilted one may overflow: it is not asked for.
            return self.masses * np.exp(np.minimum(log_weights, 700.0))


def compose(step: GridStep, window: Window, *, base: float, steps: int, anchor: float) -> Composed:
    """The T-fold convolution of a step that is on the window's grid."""
    padded = np.zeros(window.size)
    np.add.at(padded, np.arange(len(step.masses)) % window.size, step.masses)
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
    )


def _power(spectrum: np.ndarray, steps: int) -> np.ndarray:
    # By repeated squaring: log and exp of complex numbers cost more and lose the phase's last digits at large T.
    result, square, left = None, spectrum, steps
    while True:
        if left & 1:
            result = square if result is None else result * square
        left >>= 1
        if not left:
            return result if result is not None else np.ones_like(spectrum)
        square = square * square


def tilt_for_mean(points: Quadrature, target: float, *, low: float = -_LARGEST_TILT, high: float = _LARGEST_TILT) -> float:
    """The θ whose tilted mean loss of one step is `target`, within [low, high]."""
    return _root(lambda tilt: points.cumulants(tilt)[1] - target, low, high)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """A root of a rising function; an end of the interval where it lies beyond."""

    # Steps are even in asinh(θ): tilts of 1e-6 and of 1e6 both occur.
    def warped(place: float) -> float:
        return function(math.sinh(place))

    start, end = math.asinh(low), math.asinh(high)
    if warped(start) >= 0:
        return low
    if warped(end) <= 0:
        return high
    return math.sinh(float(optimize.brentq(warped, start, end, xtol=1e-6, rtol=1e-9, maxiter=200)))
