"""How well scores separate members from non-members, and how well any score could."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import optimize, stats

from dpmed.auditing.lower_limit import of_mechanism
from dpmed.metrics.intervals import binomial_interval
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.tradeoff import Composition

FPRS = (1e-3, 1e-2)
_CONFIDENCE = 0.95
# The error probability on one side of a TPR's interval is split equally between the threshold and the TPR at it.
_HALF_SIDE = (1 - _CONFIDENCE) / 4
# The curve above the ROC curve is summed from above in this many pieces: the sum exceeds it by less than one piece.
_PLACES = 10_000


@dataclass(frozen=True, kw_only=True)
class Separation:
    """The performance of a membership test by one score.

    Attributes:
        auc: probability that a member has a higher score than a non-member, with ties counted half.
        auc_interval: its 95 % interval.
        tpr: the TPR at FPR 0.001 and 0.01.
        tpr_intervals: their 95 % intervals; the lower end is 0 if there are too few non-members to determine the
            threshold of so small an FPR.
    """

    auc: float
    auc_interval: tuple[float, float]
    tpr: tuple[float, float]
    tpr_intervals: tuple[tuple[float, float], tuple[float, float]]

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        content: dict[str, Any] = {"auc": self.auc, "auc_interval": list(self.auc_interval)}
        for rate, tpr, interval in zip(FPRS, self.tpr, self.tpr_intervals, strict=True):
            content |= {f"tpr_at_fpr_{rate:g}": tpr, f"tpr_at_fpr_{rate:g}_interval": list(interval)}
        return content


def resolves(rate: float, non_members: int) -> bool:
    """Whether an FPR can be measured by so many non-members: at least one of them is expected above its threshold."""
    return rate * non_members >= 1


def separate(scores: Float[np.ndarray, " unit"], member: Bool[np.ndarray, " unit"]) -> Separation:
    """AUC, and TPR at low FPR.

    The interval of a TPR accounts for the threshold, whose FPR is known only from the scores of non-members: it extends
    from the TPR at a threshold whose FPR is certainly no larger to that at one whose FPR is certainly no smaller.

    Args:
        scores: higher for more likely members.
        member: whether each unit is a member; both must occur.
    """
    from sklearn.metrics import roc_auc_score

    inside, outside = scores[member], np.sort(scores[~member])
    auc = float(roc_auc_score(member, scores))
    found: list[float] = []
    for rate in FPRS:
        # The lowest threshold exceeded by no more than this fraction of non-members.
        threshold = outside[len(outside) - 1 - int(rate * len(outside))]
        found.append(float((inside > threshold).mean()))
    low, high = (_tpr_interval(inside, outside, rate) for rate in FPRS)
    return Separation(
        auc=auc,
        auc_interval=_auc_interval(auc, len(inside), len(outside)),
        tpr=(found[0], found[1]),
        tpr_intervals=(low, high),
    )


def _auc_interval(auc: float, members: int, others: int) -> tuple[float, float]:
    """Newcombe (2006), method 5: Hanley & McNeil's variance at the interval's ends, so that 0 and 1 also have one."""
    normal = float(stats.norm.ppf(0.5 * (1 + _CONFIDENCE)))
    more = 0.5 * (members + others) - 1

    def excess(value: float) -> float:
        spread = value * (1 - value) * (1 + more * (1 - value) / (2 - value) + more * value / (1 + value))
        return (value - auc) ** 2 - normal**2 * spread / (members * others)

    low = 0.0 if excess(0.0) <= 0 else float(optimize.brentq(excess, 0.0, auc))
    high = 1.0 if excess(1.0) <= 0 else float(optimize.brentq(excess, auc, 1.0))
    return low, high


def _tpr_interval(
    inside: Float[np.ndarray, " member"], outside: Float[np.ndarray, " other"], rate: float
) -> tuple[float, float]:
    """`outside` is in increasing order."""
    count = len(outside)
    places = np.arange(1, count + 1)
    # The FPR of the k-th largest score as threshold is Beta(k, count + 1 - k), whatever the scores' distribution.
    below = np.asarray(stats.beta.cdf(rate, places, count + 1 - places))
    surely_below = int(np.count_nonzero(below >= 1 - _HALF_SIDE))
    surely_above = int(np.count_nonzero(below > _HALF_SIDE)) + 1
    confidence = 1 - 2 * _HALF_SIDE
    low, high = 0.0, 1.0
    if surely_below > 0:
        above = int((inside > outside[count - surely_below]).sum())
        low = binomial_interval(above, len(inside), confidence=confidence).low
    if surely_above <= count:
        above = int((inside >= outside[count - surely_above]).sum())
        high = binomial_interval(above, len(inside), confidence=confidence).high
    return low, high


@dataclass(frozen=True, kw_only=True)
class ProvenBounds:
    """Bounds on every membership test, whatever it sees of the training and knows about all other records.

    Attributes:
        advantage: TPR - FPR.
        auc: the area under the curve of the largest TPRs.
        tpr: the TPR at FPR 0.001 and 0.01.
    """

    advantage: float
    auc: float
    tpr: tuple[float, float]

    def to_json(self) -> dict[str, float]:
        """As JSON types."""
        tpr = {f"bound_tpr_at_fpr_{rate:g}": bound for rate, bound in zip(FPRS, self.tpr, strict=True)}
        return {"bound_advantage": self.advantage, "bound_auc": self.auc, **tpr}


def proven_bounds(mechanism: SampledGaussian) -> ProvenBounds:
    """The bounds of a training, from its trade-off curve."""
    curve = of_mechanism(mechanism)
    rates = np.arange(1, _PLACES + 1) / _PLACES
    powers = np.min(curve.offsets[:, None] + np.minimum(curve.slopes[:, None] * rates, 2.0), axis=0)
    worst_case = Composition.of((mechanism,), "worst-case")
    return ProvenBounds(
        advantage=worst_case.advantage(),
        # TPRs increase with the FPR, so the largest of each piece is at its right end.
        auc=min(1.0, math.fsum(np.minimum(powers, 1.0)) / _PLACES),
        tpr=(worst_case.upper_power(FPRS[0]), worst_case.upper_power(FPRS[1])),
    )
