"""Agreement between predicted and true values, after Bland & Altman (Lancet, 1986)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from dpmed.metrics.evaluate import draw_units, intervals_of
from dpmed.metrics.support import FEWEST_UNITS

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
    groups: Sequence[str],
    resamples: int,
) -> Agreement | None:
    """Bias and limits of agreement of one target.

    Args:
        values: predicted values.
        targets: true values; NaN if unknown.
        groups: the unit of each sample, all of whose samples are drawn together.
        resamples: how many times all units are drawn for the intervals; 0 for none. There are none either if fewer than
            ten units have a known target.

    Returns:
        The agreement; None if fewer than two targets are known.
    """
    known = np.isfinite(targets)
    difference = values[known].astype(np.float64) - targets[known]
    if len(difference) < 2:  # noqa: PLR2004 a deviation needs two
        return None
    bias, deviation = float(difference.mean()), float(difference.std(ddof=1))
    units, found = [group for group, here in zip(groups, known.tolist(), strict=True) if here], {}
    if resamples and len(set(units)) >= FEWEST_UNITS:
        found = intervals_of(draw_units(units, partial(_draw, difference - bias, bias), resamples=resamples))
    return Agreement(
        samples=len(difference),
        bias=bias,
        deviation=deviation,
        low=bias - LIMIT * deviation,
        high=bias + LIMIT * deviation,
        intervals={name: found.get(name, (np.nan, np.nan)) for name in ("bias", "low", "high")},
    )


def _draw(
    centred: Float[np.ndarray, " sample"], bias: float, weights: Int[np.ndarray, "resample sample"]
) -> dict[str, Float[np.ndarray, " resample"]]:
    """Bias and limits of every resample, from differences less their mean, which is `bias`."""
    counted = weights.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        count = counted.sum(axis=1)
        shift = counted @ centred / count
        spread = np.sqrt(np.maximum(counted @ centred**2 - count * shift**2, 0.0) / (count - 1))
    return {"bias": bias + shift, "low": bias + shift - LIMIT * spread, "high": bias + shift + LIMIT * spread}
