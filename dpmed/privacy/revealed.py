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

# e^-95 = 5e-42: mass outside is left out; at δ >= 1e-12 this is far below the last digit.
_TAIL = 95.0
# How many squared shifts are distinguished: of several kinds combined, and of the kind being added to them.
_MOST_SHIFTS, _MOST_ADDED = 1 << 13, 1 << 10


def revealed_epsilon(mechanisms: Sequence[SampledGaussian], delta: float) -> float:
    """The smallest ε >= 0 at δ of the mechanism that reveals participation.

    Args:
        mechanisms: at least one step; those with q = 1 are Gaussian mechanisms and are exact.
        delta: δ in (0, 1).
    """
    shifts, log_weights = _shifts(merged(mechanisms))

    def excess(epsilon: float) -> float:
        log_deltas = log_weights + gaussian_log_delta(epsilon, shifts)
        largest = float(log_deltas.max())
        return largest + math.log(float(np.exp(log_deltas - largest).sum())) - math.log(delta)

    if excess(0.0) <= 0:
        return 0.0
    high = max(1e-3, float(shifts[-1]) ** 2)
    while excess(high) > 0:
        high *= 2
    low = high / 2
    while low > 1e-12 and excess(low) < 0:  # noqa: PLR2004 far below any ε in use
        low, high = low / 2, low
    # The upper end of the bracket is never below the true value.
    found = float(optimize.brentq(excess, low, high, rtol=1e-11, xtol=1e-300, maxiter=300))
    return found * (1 + 1e-9)


def gaussian_log_delta(epsilon: float, shifts: Vector) -> Vector:
    """The logarithm of δ(ε) of the Gaussian mechanism for each μ > 0: Φ(μ/2 - ε/μ) - exp(ε) Φ(-μ/2 - ε/μ)."""
    place = epsilon / shifts - 0.5 * shifts
    first = special.log_ndtr(-place)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        # exp(ε) Φ(-place - μ) / Φ(-place) by scaled tails: the two exponentials cancel on paper but not in floating
        # point.
        ratio = np.where(
            place > -1,
            special.erfcx((place + shifts) / math.sqrt(2)) / special.erfcx(np.maximum(place, -1) / math.sqrt(2)),
            np.exp(np.minimum(epsilon + special.log_ndtr(-place - shifts) - first, 0.0)),
        )
        return first + np.log1p(-np.clip(np.nan_to_num(ratio), 0.0, 1.0))


@lru_cache(maxsize=64)
def _shifts(mechanisms: tuple[SampledGaussian, ...]) -> tuple[Vector, Vector]:
    """The possible shifts above 0, in increasing order, and the log-probability of each."""
    mechanisms = tuple(sorted(mechanisms, key=lambda one: one.noise_multiplier))
    # In units of the largest 1/σ², squares neither overflow nor vanish.
    unit = mechanisms[0].noise_multiplier
    squares, log_weights = np.zeros(1), np.zeros(1)
    for one in mechanisms:
        counts, log_chances = _participations(one.steps, one.sampling_rate)
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
    largest, weights = np.zeros(most), np.bincount(bins, np.exp(log_weights - log_weights.max()), most)
    np.maximum.at(largest, bins, squares)
    kept = weights > 0
    return largest[kept], np.log(weights[kept]) + log_weights.max()


@lru_cache(maxsize=128)
def _participations(steps: int, rate: float) -> tuple[Vector, Vector]:
    """The possible numbers of participations and the log-probability of each."""
    if rate >= 1:
        return np.asarray([float(steps)]), np.zeros(1)
    low, high = (_quantile(steps, rate, side) for side in (-1, 1))
    counts = np.arange(low, high + 1)
    # The binomial distribution: log C(steps, count) + count log rate + (steps - count) log(1 - rate).
    choices = special.gammaln(steps + 1) - special.gammaln(counts + 1) - special.gammaln(steps - counts + 1)
    likely = choices + special.xlogy(counts, rate) + special.xlog1py(steps - counts, -rate)
    return counts.astype(np.float64), likely


def _quantile(steps: int, rate: float, side: int) -> int:
    """The count below (side -1) or above (side 1) which lies less than e^-95 of Binomial(steps, rate), by Chernoff."""
    mean = steps * rate
    near, far = math.floor(mean) if side < 0 else math.ceil(mean), 0 if side < 0 else steps
    if _divergence(far / steps, rate) * steps < _TAIL:
        return far
    while abs(far - near) > 1:
        middle = (near + far) // 2
        near, far = (near, middle) if _divergence(middle / steps, rate) * steps >= _TAIL else (middle, far)
    return far


def _divergence(share: float, rate: float) -> float:
    """Kullback-Leibler divergence between two Bernoulli distributions."""
    return float(special.rel_entr(share, rate) + special.rel_entr(1 - share, 1 - rate))
