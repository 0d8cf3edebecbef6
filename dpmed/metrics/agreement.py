"""Agreement between predicted and true values, after Bland & Altman (Lancet, 1986)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from dpmed.metrics.evaluate import interval_of

LIMIT = 1.96


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How predicted values compare with true ones, in the target's own unit.

    Attributes:
        samples: number of samples with a known target.
        bias: mean of predicted - true.
        deviation: standard deviation of these differences (n - 1).
        low: bias - 1.96 deviations: the lower limit of agreement.
        high: bias + 1.96 deviations: the upper one.
        intervals: 95 % intervals, by unit, of `bias`, `low` and `high`; NaN if they cannot be computed.
    """

    samples: int
    bias: float
    deviation: float
    low: float
    high: float
    intervals: dict[str, tuple[float, float]]


def agreement(
    values: Float[np.ndarray, " sample"],
    targets: Float[np.ndarray, " sample"],
    *,
    weights: Int[np.ndarray, "resample sample"],
) -> Agreement | None:
    """Bias and limits of agreement of one target.

    Args:
        values: predicted values.
        targets: true values; NaN if unknown.
        weights: how often each sample occurs in every resample by unit, for the intervals.

    Returns:
        The agreement; None if fewer than two targets are known.
    """
    known = np.isfinite(targets)
    difference = values[known].astype(np.float64) - targets[known]
    if len(difference) < 2:  # noqa: PLR2004 a deviation needs two
        return None
    bias, deviation = float(difference.mean()), float(difference.std(ddof=1))
    counted = weights[:, known].astype(np.float64)
    centred = difference - bias
    with np.errstate(invalid="ignore", divide="ignore"):
        count = counted.sum(axis=1)
        shift = counted @ centred / count
        spread = np.sqrt(np.maximum(counted @ centred**2 - count * shift**2, 0.0) / (count - 1))
    drawn = {"bias": bias + shift, "low": bias + shift - LIMIT * spread, "high": bias + shift + LIMIT * spread}
    return Agreement(
        samples=len(difference),
        bias=bias,
        deviation=deviation,
        low=bias - LIMIT * deviation,
        high=bias + LIMIT * deviation,
        intervals={name: interval_of(column) or (np.nan, np.nan) for name, column in drawn.items()},
    )
