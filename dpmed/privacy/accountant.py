"""ε(σ), σ(ε) and steps(ε) of T Poisson-subsampled Gaussian steps, at any budget from 0.01 to 10^18.

Two accountants: `pld`, tight, from the distribution of the privacy loss; `rdp`, from Rényi divergences, looser, but
used in much earlier work. The tight one is the smaller of two upper bounds: the composed loss on a grid, and the
mechanism that reveals who took part, which is exact where σ is so small that a step reveals it anyway. There is no jump
between the two regimes, because both are exact where one takes over from the other.

Adjacency is add-or-remove-one throughout; δ is given.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from dpmed.errors import InputError
from dpmed.privacy.mechanism import Mechanisms, SampledGaussian, participation
from dpmed.privacy.several import AccountantName, composed_epsilon
from dpmed.rounding import rounded_up

__all__ = ["AccountantName", "SampledGaussian", "calibrate_noise", "calibrate_steps", "epsilon"]

_SMALLEST_NOISE, _LARGEST_NOISE = 1e-12, 1e9
# Calibrated σ are accurate to this fraction, on the safe side.
_TOLERANCE = 1e-6
_MOST_STEPS = 10**9


def epsilon(mechanism: SampledGaussian, delta: float, *, accountant: AccountantName = "pld") -> float:
    """The smallest ε >= 0 at δ; for `pld` an upper bound, from ε = 0.01 on within 0.1 % of the truth.

    Args:
        mechanism: the steps.
        delta: δ in (0, 1).
        accountant: the accountant used.
    """
    return composed_epsilon((mechanism,), delta, accountant=accountant)


def calibrate_noise(
    *,
    epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    accountant: AccountantName = "pld",
    others: Mechanisms = (),
) -> float:
    """The smallest σ, to about 1e-6, whose ε at δ is at most `epsilon`.

    Args:
        epsilon: ε > 0.
        delta: δ in (0, 1).
        sampling_rate: q in (0, 1].
        steps: T >= 1.
        accountant: the accountant that ε refers to.
        others: what else `epsilon` has to cover, such as earlier runs on the same unit.

    Raises:
        InputError: ε is 0 at every σ, since the target hardly ever takes part; or no σ achieves `epsilon`.
    """
    alone = SampledGaussian(noise_multiplier=1.0, sampling_rate=sampling_rate, steps=steps)
    chance = participation((*others, alone))
    if chance <= delta and accountant == "pld":
        raise InputError(
            f"the probability of ever taking part is {chance:.3g}, not above δ = {delta:g}, so ε is 0 at every σ and "
            "there is nothing to calibrate",
            where="delta",
            remedy="Choose a smaller δ, or give the noise multiplier.",
        )
    _require_left(others, epsilon, delta, accountant)

    def spent(noise: float) -> float:
        return composed_epsilon((*others, replace(alone, noise_multiplier=noise)), delta, accountant=accountant)

    return _smallest_noise(spent, epsilon)


def calibrate_steps(
    *,
    epsilon: float,
    delta: float,
    sampling_rate: float,
    noise_multiplier: float,
    accountant: AccountantName = "pld",
    others: Mechanisms = (),
) -> int:
    """The largest T whose ε at δ, together with that of `others`, is at most `epsilon`.

    Args:
        epsilon: ε > 0.
        delta: δ in (0, 1).
        sampling_rate: q in (0, 1].
        noise_multiplier: σ > 0.
        accountant: how ε is computed.
        others: what has been spent before.

    Raises:
        InputError: not even one step is possible, or their number is unlimited.
    """
    _require_left(others, epsilon, delta, accountant)

    def spent(steps: int) -> float:
        own = SampledGaussian(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, steps=steps)
        return composed_epsilon((*others, own), delta, accountant=accountant)

    if spent(1) > epsilon:
        together = " together with earlier runs" if others else ""
        raise InputError(
            f"one step at σ = {noise_multiplier:g}{together} already spends ε = {rounded_up(spent(1))}, more "
            f"than {epsilon:g}",
            where="epsilon",
            remedy="Choose more noise or a larger ε.",
        )
    low, high = 1, 2
    while spent(high) <= epsilon:
        low, high = high, high * 2
        if high > _MOST_STEPS:
            raise InputError(f"ε = {epsilon:g} allows over {_MOST_STEPS} steps", where="epsilon")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if spent(middle) <= epsilon else (low, middle)
    return low


def _require_left(others: Mechanisms, target: float, delta: float, accountant: AccountantName) -> None:
    before = composed_epsilon(others, delta, accountant=accountant)
    if others and before >= target:
        raise InputError(
            f"earlier runs have already spent ε = {rounded_up(before)}, and the total is {target:g}",
            where="epsilon",
            remedy="Choose a larger ε, or data on which less has been spent.",
        )


def _smallest_noise(spent: Callable[[float], float], target: float) -> float:
    """The smallest σ with spent(σ) <= target, by the secant rule on logarithms inside a shrinking bracket."""
    low, high = _bracket(spent, target)
    log_low, log_high = math.log(low[0]), math.log(high[0])
    f_low, f_high = _excess(low[1], target), _excess(high[1], target)
    for turn in range(60):
        if log_high - log_low <= _TOLERANCE or abs(f_high) < _TOLERANCE:
            break
        guess = log_low + (log_high - log_low) * f_low / (f_low - f_high)
        # Aim slightly to the safe side; bisect now and then to guarantee that the bracket closes.
        guess = 0.5 * (log_low + log_high) if turn % 4 == 3 else guess + 0.25 * _TOLERANCE  # noqa: PLR2004
        guess = min(max(guess, log_low + 0.2 * _TOLERANCE), log_high - 0.2 * _TOLERANCE)
        excess = _excess(spent(math.exp(guess)), target)
        if excess > 0:
            log_low, f_low = guess, excess
        else:
            log_high, f_high = guess, excess
    return math.exp(log_high)


def _excess(value: float, target: float) -> float:
    # The logarithm of the ratio is nearly linear in log σ; ε = 0 counts as far below any target.
    return math.log(max(value, 1e-6 * target) / target)


def _bracket(spent: Callable[[float], float], target: float) -> tuple[tuple[float, float], tuple[float, float]]:
    noise, factor = 1.0, 2.0
    value = spent(noise)
    grow = value > target
    while True:
        # The further away, the larger the stride: ε falls as σ^-1 to σ^-2.
        stride = factor * max(1.0, (max(value, target) / max(min(value, target), 1e-12)) ** 0.45)
        stride = min(stride, 1e6)
        following = noise * stride if grow else noise / stride
        if not _SMALLEST_NOISE <= following <= _LARGEST_NOISE:
            raise InputError(
                f"no noise multiplier between {_SMALLEST_NOISE:g} and {_LARGEST_NOISE:g} reaches ε = {target:g}"
            )
        reached = spent(following)
        if grow and reached <= target:
            return (noise, value), (following, reached)
        if not grow and reached > target:
            return (following, reached), (noise, value)
        noise, value = following, reached
