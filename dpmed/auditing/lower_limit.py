"""From guesses about who took part to a lower confidence limit of ε.

A fair coin decides for each of m canaries whether it is included in one training. An auditor who has seen the training
makes a guess for r of them and is right v times. If the training is as private as claimed, many right guesses are
improbable, whatever the auditor does; a limit follows from how improbable they are.

There are two ways. From (ε, δ) alone: the number of right guesses is dominated by a binomial with success rate e^ε / (1
+ e^ε), up to δ (Steinke, Nasr & Jagielski, 2023, Theorem 5.2). From the whole trade-off curve: let f̄(x) be the largest
TPR at FPR x of any test for one canary, and p_i the probability of i right guesses. If j's coin is flipped, "the guess
for canary j is right, and i guesses are right in total" becomes "it is wrong, and i - 1 are right". Averaged over j and
both outcomes, concavity of f̄ gives for every k

    Σ_{i ≥ k} (i / m) p_i  ≤  f̄( Σ_{i ≥ k-1} ((r - i) / m) p_i ).

(Mahloujifar, Melis & Chaudhuri, 2024, "Auditing f-differential privacy in one run"; derived here for abstentions.) The
most favourable distribution with P(at least v) = α that satisfies this for all k puts all of α on v, and only as much
as necessary below; if that sums to more than 1, the claim is rejected at level α.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.several import composed_epsilon

_DELTAS = np.array([1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.02, 0.04, 0.07, 0.12, 0.2, 0.3, 0.42, 0.56, 0.72, 0.88])
_LARGEST_EPSILON = 50.0
_TURNS = 40
_PRECISION = 1e-8
_MOST_NOISE, _LEAST_NOISE, _STRIDE, _HALVINGS = 16.0, 0.05, 2.0, 6


@dataclass(frozen=True, eq=False)
class TradeOff:
    """Lines above a trade-off curve: TPR <= offset + slope · FPR, in both directions.

    Attributes:
        slopes: slope of each line, above 0.
        offsets: its value at FPR 0.
    """

    slopes: Float[np.ndarray, " line"]
    offsets: Float[np.ndarray, " line"]

    @classmethod
    def of(cls, epsilons: Sequence[float], deltas: Sequence[float]) -> "TradeOff":
        """The curve of all these (ε, δ), each of which holds. Source: Kairouz, Oh & Viswanath (2015)."""
        growth = np.exp(np.minimum(epsilons, 700.0))
        delta = np.asarray(deltas)
        # TPR <= δ + e^ε FPR, and with present and absent exchanged, 1 - FPR <= δ + e^ε (1 - TPR).
        slopes = np.concatenate([growth, 1 / growth, [1e-300]])
        offsets = np.concatenate([delta, 1 - (1 - delta) / growth, [1.0]])
        return cls(slopes, offsets)

    def smallest_fpr(self, tpr: float) -> float:
        """The smallest FPR at which a test may have this TPR."""
        return max(0.0, float(np.max((tpr - self.offsets) / self.slopes)))


def of_mechanism(mechanism: SampledGaussian) -> TradeOff:
    """The curve of subsampled Gaussian steps: an (ε, δ) for each of many δ, all of which hold."""
    epsilons = [composed_epsilon((mechanism,), float(delta)) for delta in _DELTAS]
    return TradeOff.of(epsilons, _DELTAS.tolist())


def rejects(curve: TradeOff, *, canaries: int, guesses: int, correct: int, level: float) -> bool:
    """Whether this many right guesses have a probability of at most `level` for every training within the curve.

    Args:
        curve: the claimed curve.
        canaries: m >= r.
        guesses: r >= 1.
        correct: v in 0 .. r.
        level: α in (0, 1).
    """
    if correct == 0:
        return False
    mass = total = level
    right = correct / canaries * level
    wrong = (guesses - correct) / canaries * level
    for count in range(correct - 1, -1, -1):
        # The mass at `count` that the inequality for k = count + 1 needs.
        needed = curve.smallest_fpr(right) - wrong
        mass = max(0.0, needed * canaries / (guesses - count))
        total += mass
        if total > 1:
            return True
        right += count / canaries * mass
        wrong += (guesses - count) / canaries * mass
    return False


def p_value(*, canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """An upper bound on the probability of this many right guesses if the training is (ε, δ)-differentially private.

    Args:
        canaries: m.
        guesses: r, at most m.
        correct: v, at most r.
        epsilon: ε >= 0.
        delta: δ in [0, 1).

    Source: Steinke, Nasr & Jagielski (2023), Theorem 5.2.
    """
    rate = 1 / (1 + math.exp(-epsilon))
    tail = float(stats.binom.sf(correct - 1, guesses, rate))
    counts = np.arange(1, correct + 1)
    # The largest of P(v - i <= Binomial < v) / i.
    below = np.cumsum(stats.binom.pmf(correct - counts, guesses, rate))
    worst = float(np.max(below / counts, initial=0.0))
    return min(1.0, tail + 2 * canaries * delta * worst)


def epsilon_by_guesses(*, canaries: int, guesses: int, correct: int, delta: float, level: float) -> float:
    """The largest ε that is rejected at `level`, from (ε, δ) alone; 0 if none is.

    Args:
        canaries: m.
        guesses: r, at most m.
        correct: v, at most r.
        delta: δ in [0, 1).
        level: α in (0, 1): the probability that a training with a smaller ε is said to exceed the limit.
    """

    def is_rejected(epsilon: float) -> bool:
        return p_value(canaries=canaries, guesses=guesses, correct=correct, epsilon=epsilon, delta=delta) <= level

    return _largest(is_rejected)


def noise_by_curve(
    claimed: SampledGaussian, *, canaries: int, guesses: int, correct: int, level: float
) -> float | None:
    """The smallest noise multiplier σ' for which "the same sampling and steps with σ'" is rejected; None if none is.

    Args:
        claimed: gives sampling rate and steps.
        canaries: m.
        guesses: r.
        correct: v.
        level: α.
    """

    def is_rejected(noise: float) -> bool:
        mechanism = SampledGaussian(noise_multiplier=noise, sampling_rate=claimed.sampling_rate, steps=claimed.steps)
        return rejects(of_mechanism(mechanism), canaries=canaries, guesses=guesses, correct=correct, level=level)

    # The larger the noise, the lower the curve: search from the claim towards where the answer changes.
    low = high = claimed.noise_multiplier
    if is_rejected(high):
        low /= _STRIDE
        while is_rejected(low):
            low, high = low / _STRIDE, low
            if low < _LEAST_NOISE * claimed.noise_multiplier:
                return high
    else:
        high *= _STRIDE
        while not is_rejected(high):
            low, high = high, high * _STRIDE
            if high > _MOST_NOISE * claimed.noise_multiplier:
                return None
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if is_rejected(middle) else (middle, high)
    return high


def epsilon_by_curve(
    claimed: SampledGaussian, *, canaries: int, guesses: int, correct: int, delta: float, level: float
) -> float:
    """A lower limit of ε at δ for a training that is as claimed except for its noise; 0 if nothing is rejected.

    The trade-off curve is that of the claimed sampling and steps with some noise multiplier σ'. All σ' from a certain
    value on are rejected at `level`, and the ε of that value is the limit.

    Args:
        claimed: gives sampling rate and steps.
        canaries: m.
        guesses: r, at most m.
        correct: v, at most r.
        delta: δ in (0, 1).
        level: α in (0, 1).

    Source: Mahloujifar, Melis & Chaudhuri (2024), with abstentions as derived above.
    """
    noise = noise_by_curve(claimed, canaries=canaries, guesses=guesses, correct=correct, level=level)
    if noise is None:
        return 0.0
    found = SampledGaussian(noise_multiplier=noise, sampling_rate=claimed.sampling_rate, steps=claimed.steps)
    return composed_epsilon((found,), delta)


def _largest(is_rejected: Callable[[float], bool]) -> float:
    low, high = 0.0, _LARGEST_EPSILON
    if not is_rejected(low):
        return 0.0
    for _ in range(_TURNS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if is_rejected(middle) else (low, middle)
        if high - low < _PRECISION:
            break
    return low
