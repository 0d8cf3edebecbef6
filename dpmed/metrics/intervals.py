"""Exact confidence intervals of a proportion, valid at any sample size."""

from dataclasses import dataclass

from scipy import special


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A confidence interval of a proportion.

    Attributes:
        low: lower end.
        high: upper end.
    """

    low: float
    high: float


def binomial_interval(successes: int, trials: int, *, confidence: float) -> Interval:
    """The exact two-sided confidence interval of a success rate.

    It also holds for trials with different success rates: a sum of independent indicators with different rates is less
    spread out than one with equal rates (Hoeffding, 1956).

    Args:
        successes: 0 to `trials`.
        trials: at least 1.
        confidence: in (0, 1).

    Raises:
        ValueError: there are more successes than trials, or no trials.

    Source: Clopper & Pearson (1934).
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"Expected 0 <= {successes=} <= {trials=} and a trial.")
    tail = (1 - confidence) / 2
    # Quantiles of beta distributions. (`scipy.stats.binomtest` searches for them; importing it takes a second.)
    low = special.betaincinv(successes, trials - successes + 1, tail) if successes else 0.0
    high = special.betainccinv(successes + 1, trials - successes, tail) if successes < trials else 1.0
    return Interval(low=float(low), high=float(high))
