"""ε if each step reveals who took part: exact for small noise, an upper bound everywhere.

If told in which k of T steps the target took part, the adversary faces one Gaussian mechanism of squared shift k/σ²;
for several kinds of steps, the squares add up. An adversary who is told more knows no less, so δ(ε) is at most the mean
of δ_Gauss(ε; μ) over the number of participations in each kind of step: for one kind, the sum over k of Binomial(k; T,
q) · δ_Gauss(ε; √k/σ). Once the noise is so small that a step reveals participation anyway, the bound is exact.

Source of δ_Gauss: Balle & Wang (2018), Theorem 8.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import optimize, special

from dpmed.privacy.mechanism import SampledGaussian, merged

Vector = Float[np.ndarray, " n"]
Fewer = Float[np.ndarray, " m"]

# Numbers of participations beyond which less than e^-95 = 5e-42 lies are left out. For tiny δ the limit is lower: what
# is left out is never more than e^-40 = 4e-18 of δ.
_TAIL, _BELOW_DELTA = 95.0, 40.0
# What log δ(ε) may lack per kind of step, through rounding and through what is left out. At small noise δ(ε) has
# plateaus, where a tiny error in δ is a large one in ε.
_ROUNDING = 1e-12
# Weights below e^-690 of the largest count as that much: exp would lose some. That matters for δ below 1e-290 only.
_SMALLEST_SHARE = -690.0
# How many squared shifts are distinguished: of several kinds combined, and of the kind being added to them.
_MOST_SHIFTS, _MOST_ADDED = 1 << 13, 1 << 10
_UNIT = float(np.finfo(np.float64).eps)
# From here on log n! is Stirling's series.
_STIRLING = 16.0


def revealed_epsilon(mechanisms: Sequence[SampledGaussian], delta: float) -> float:
    """The smallest ε >= 0 at δ of the mechanism that reveals participation.

    Args:
        mechanisms: at least one step; those with q = 1 are Gaussian mechanisms and are exact.
        delta: δ in (0, 1).
    """
    pieces = merged(mechanisms)
    shifts, log_weights = _shifts(pieces, _tail(delta))
    allowed = math.log(delta) - _ROUNDING * len(pieces)

    def excess(epsilon: float) -> float:
        log_deltas = log_weights + gaussian_log_delta(epsilon, shifts)
        largest = float(log_deltas.max())
        return largest + math.log(float(np.exp(log_deltas - largest).sum())) - allowed

    if excess(0.0) <= 0:
        return 0.0
    high = max(1e-3, float(shifts[-1]) ** 2)
    while excess(high) > 0:
        high *= 2
    low = high / 2
    while excess(low) < 0:
        if low < 1e-12:  # noqa: PLR2004 far below any ε in use
            return low
        low, high = low / 2, low
    # The upper end of the bracket is never below the true value.
    found = float(optimize.brentq(excess, low, high, rtol=1e-11, xtol=1e-300, maxiter=300))
    return found * (1 + 1e-9)


def gaussian_log_delta(epsilon: float, shifts: Vector) -> Vector:
    """The logarithm of δ(ε) of the Gaussian mechanism for each μ > 0: Φ(μ/2 - ε/μ) - exp(ε) Φ(-μ/2 - ε/μ)."""
    place = epsilon / shifts - 0.5 * shifts
    first = special.log_ndtr(-place)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        # exp(ε) Φ(-place - μ) / Φ(-place) by scaled tails: exp(ε) and the exponentials of both tails cancel on paper,
        # since (place + μ)² = place² + 2ε, but not in floating point.
        scaled = special.erfcx((place + shifts) / math.sqrt(2))
        ratio = np.where(
            place > -1,
            scaled / special.erfcx(np.maximum(place, -1) / math.sqrt(2)),
            0.5 * scaled * np.exp(-0.5 * place**2 - first),
        )
        # Smaller by what rounding may have added, which matters where it is nearly 1: at large noise.
        return first + np.log1p(-np.clip(np.nan_to_num(ratio) * (1 - 8 * _UNIT), 0.0, 1.0))


def _tail(delta: float) -> float:
    """The negative logarithm of the mass that may be left out on each side; one of few values, to be cached by."""
    tail = _TAIL
    while tail < _BELOW_DELTA - math.log(delta):
        tail *= 2
    return tail


@lru_cache(maxsize=64)
def _shifts(mechanisms: tuple[SampledGaussian, ...], tail: float) -> tuple[Vector, Vector]:
    """The possible shifts above 0, in increasing order, and the log-probability of each."""
    mechanisms = tuple(sorted(mechanisms, key=lambda one: one.noise_multiplier))
    # In units of the largest 1/σ², squares neither overflow nor vanish.
    unit = mechanisms[0].noise_multiplier
    squares, log_weights = np.zeros(1), np.zeros(1)
    for one in mechanisms:
        counts, log_chances = _participations(one.steps, one.sampling_rate, tail)
        own = counts * (unit / one.noise_multiplier) ** 2
        if len(mechanisms) > 1:
            own, log_chances = _rounded_up(own, log_chances, most=_MOST_ADDED)
        squares = np.add.outer(squares, own).ravel()
        log_weights = np.add.outer(log_weights, log_chances).ravel()
        if len(mechanisms) > 1:
            squares, log_weights = _rounded_up(squares, log_weights, most=_MOST_SHIFTS)
    taken = squares > 0
    return np.sqrt(squares[taken]) / unit, log_weights[taken]


def _rounded_up(squares: Vector, log_weights: Vector, *, most: int) -> tuple[Fewer, Fewer]:
    """Merges neighbours at the larger of the two, which never lowers δ, until at most `most` are left."""
    low, high = float(squares.min()), float(squares.max())
    if len(squares) <= most or low == high:
        return squares, log_weights
    bins = np.minimum(((squares - low) / (high - low) * most).astype(np.int64), most - 1)
    shares = np.exp(np.maximum(log_weights - log_weights.max(), _SMALLEST_SHARE))
    largest, weights = np.zeros(most), np.bincount(bins, shares, most)
    np.maximum.at(largest, bins, squares)
    kept = weights > 0
    return largest[kept], np.log(weights[kept]) + log_weights.max()


@lru_cache(maxsize=128)
def _participations(steps: int, rate: float, tail: float) -> tuple[Vector, Vector]:
    """The possible numbers of participations and the log-probability of each, rounded up (to within 1e-12).

    Less than exp(-tail) is left out on each side. The logarithms of large factorials agree in most of their digits,
    which differences lose; so these are written as deviances from the mean, and what Stirling's formula leaves
    (C. Loader, Fast and accurate computation of binomial probabilities, 2000).
    """
    if rate >= 1:
        return np.asarray([float(steps)]), np.zeros(1)
    low, high = (_quantile(steps, rate, side, tail) for side in (-1, 1))
    counts = np.arange(low, high + 1).astype(np.float64)
    mean, others = steps * rate, steps * (1 - rate)
    away = counts - mean
    likely = _beyond_stirling(np.asarray([float(steps)])) - _beyond_stirling(counts) - _beyond_stirling(steps - counts)
    likely -= _deviance(counts, away, mean) + _deviance(steps - counts, -away, others)
    # Deviances are rounded in proportion to the distance from the mean, by less than six units in the last place.
    return counts, likely + 6 * _UNIT * np.abs(away)


def _beyond_stirling(counts: Vector) -> Vector:
    """The logarithm of n! / (n / e)^n for each n >= 0, to 1e-14."""
    large = np.maximum(counts, _STIRLING)
    square = 1 / large**2
    # The remainder is below 1/(1188 n^9) = 1e-14 (Abramowitz & Stegun, 6.1.42).
    series = (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680))) / large
    small = np.minimum(counts, _STIRLING)
    exact = special.gammaln(small + 1) - special.xlogy(small, small) + small
    return np.where(counts < _STIRLING, exact, 0.5 * np.log(2 * math.pi * large) + series)


def _deviance(counts: Vector, away: Vector, mean: float) -> Vector:
    """The deviance n log(n / mean) - n + mean for each n = mean + away."""
    return special.xlog1py(counts, np.maximum(away / mean, -1.0)) - away


def _quantile(steps: int, rate: float, side: int, tail: float) -> int:
    """The count below (side -1) or above (1) which lies less than exp(-tail) of Binomial(steps, rate), by Chernoff."""
    mean = steps * rate
    near, far = math.floor(mean) if side < 0 else math.ceil(mean), 0 if side < 0 else steps
    if _divergence(far / steps, rate) * steps < tail:
        return far
    while abs(far - near) > 1:
        middle = (near + far) // 2
        near, far = (near, middle) if _divergence(middle / steps, rate) * steps >= tail else (middle, far)
    return far


def _divergence(share: float, rate: float) -> float:
    """Kullback-Leibler divergence between two Bernoulli distributions."""
    return float(special.rel_entr(share, rate) + special.rel_entr(1 - share, 1 - rate))
