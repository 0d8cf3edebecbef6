"""How well scores tell those who took part from those who did not."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from dpmed.metrics.intervals import binomial_interval

_FPRS = (1e-3, 1e-2)


@dataclass(frozen=True, kw_only=True)
class Separation:
    """What a membership test by one score reaches.

    Attributes:
        auc: the chance that a member has a higher score than a non-member, ties by half.
        tpr: the TPR at FPR 0.001 and 0.01.
        intervals: of these, 95 %, exact binomial, the threshold taken as given.
    """

    auc: float
    tpr: tuple[float, float]
    intervals: tuple[tuple[float, float], tuple[float, float]]


def separate(scores: Float[np.ndarray, " unit"], member: Bool[np.ndarray, " unit"]) -> Separation:
    """AUC, and TPR at low FPR.

    Args:
        scores: higher where it rather was in.
        member: whether it was; some of both.
    """
    from sklearn.metrics import roc_auc_score

    inside, outside = scores[member], np.sort(scores[~member])
    found: list[float] = []
    intervals: list[tuple[float, float]] = []
    for rate in _FPRS:
        # The lowest threshold that no more than this share of non-members exceeds.
        threshold = outside[len(outside) - 1 - int(rate * len(outside))]
        above = int((inside > threshold).sum())
        found.append(above / len(inside))
        interval = binomial_interval(above, len(inside), confidence=0.95)
        intervals.append((interval.low, interval.high))
    return Separation(
        auc=float(roc_auc_score(member, scores)),
        tpr=(found[0], found[1]),
        intervals=(intervals[0], intervals[1]),
    )
