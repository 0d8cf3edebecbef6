"""How useful predicted probabilities are: operating points, curves over all thresholds, and calibration.

Everything refers to one yes-or-no question: one class against the rest, or one label. Curves come from scikit-learn.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from dpmed.metrics.intervals import binomial_interval

BINS = 10
# Of a product of a fraction and a count, generously.
_ROUNDING = 1e-9
_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A test at one threshold; a rate is NaN if the data have no samples for it.

    Attributes:
        threshold: the answer is yes from this probability on.
        sensitivity: fraction of the positives that are found.
        sensitivity_interval: its exact 95 % interval.
        specificity: fraction of the negatives that are not flagged.
        specificity_interval: its exact 95 % interval.
        ppv: fraction of yes answers that are right, at the prevalence of these data.
        npv: fraction of no answers that are right.
    """

    threshold: float
    sensitivity: float
    sensitivity_interval: tuple[float, float]
    specificity: float
    specificity_interval: tuple[float, float]
    ppv: float
    npv: float

    def at_prevalence(self, prevalence: float) -> tuple[float, float]:
        """PPV and NPV if this fraction of people has the finding (Bayes)."""
        hit, passed = self.sensitivity * prevalence, self.specificity * (1 - prevalence)
        missed, alarm = (1 - self.sensitivity) * prevalence, (1 - self.specificity) * (1 - prevalence)
        return hit / (hit + alarm) if hit + alarm else np.nan, passed / (passed + missed) if passed + missed else np.nan


def operating_point(
    probability: Float[np.ndarray, " sample"], positive: Bool[np.ndarray, " sample"], threshold: float
) -> OperatingPoint:
    """The operating point of a threshold on these samples."""
    says_yes = probability >= threshold
    hits, alarms = int((says_yes & positive).sum()), int((says_yes & ~positive).sum())
    positives, negatives = int(positive.sum()), int((~positive).sum())
    sensitivity, sensitivity_interval = _share(hits, positives)
    specificity, specificity_interval = _share(negatives - alarms, negatives)
    misses = positives - hits
    return OperatingPoint(
        threshold=float(threshold),
        sensitivity=sensitivity,
        sensitivity_interval=sensitivity_interval,
        specificity=specificity,
        specificity_interval=specificity_interval,
        ppv=_share(hits, hits + alarms)[0],
        npv=_share(negatives - alarms, negatives - alarms + misses)[0],
    )


def threshold_for_sensitivity(
    probability: Float[np.ndarray, " sample"], positive: Bool[np.ndarray, " sample"], sensitivity: float
) -> float:
    """The highest threshold that finds at least this fraction of the positives; 0 if there are none.

    Args:
        probability: from 0 to 1.
        positive: the truth.
        sensitivity: in (0, 1].
    """
    scores = np.sort(probability[positive])[::-1]
    # 0.55 * 100 is more than 55 in floating point.
    needed = max(1, int(np.ceil(sensitivity * len(scores) - _ROUNDING)))
    return float(scores[needed - 1]) if len(scores) else 0.0


def threshold_for_specificity(
    probability: Float[np.ndarray, " sample"], positive: Bool[np.ndarray, " sample"], specificity: float
) -> float:
    """The lowest threshold that leaves at least this fraction of the negatives unflagged; 0 if there are none.

    Args:
        probability: from 0 to 1.
        positive: the truth.
        specificity: in (0, 1].
    """
    scores = np.sort(probability[~positive])
    allowed = int(np.floor((1 - specificity) * len(scores) + _ROUNDING))
    return float(np.nextafter(scores[len(scores) - 1 - allowed], np.inf)) if len(scores) else 0.0


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """Samples of similar probability.

    Attributes:
        low: lower end of the bin.
        high: upper end.
        samples: number of samples.
        mean_probability: mean predicted probability.
        share_positive: observed fraction of positives.
        interval: its exact 95 % interval.
    """

    low: float
    high: float
    samples: int
    mean_probability: float
    share_positive: float
    interval: tuple[float, float]


def calibration(
    probability: Float[np.ndarray, " sample"], positive: Bool[np.ndarray, " sample"]
) -> tuple[CalibrationBin, ...]:
    """The reliability diagram: ten bins of equal width, without empty ones (Guo et al., 2017)."""
    edges = np.linspace(0, 1, BINS + 1)
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    found = []
    for number in range(BINS):
        here = place == number
        if here.any():
            share, interval = _share(int(positive[here].sum()), int(here.sum()))
            found.append(
                CalibrationBin(
                    low=float(edges[number]),
                    high=float(edges[number + 1]),
                    samples=int(here.sum()),
                    mean_probability=float(probability[here].mean()),
                    share_positive=share,
                    interval=interval,
                )
            )
    return tuple(found)


def _share(count: int, total: int) -> tuple[float, tuple[float, float]]:
    if total == 0:
        return np.nan, (0.0, 1.0)
    interval = binomial_interval(count, total, confidence=_CONFIDENCE)
    return count / total, (interval.low, interval.high)
