"""Scores of probabilities for one question over weighted samples, from which their intervals are computed."""

import numpy as np
from jaxtyping import Bool, Float, Int

from dpmed.metrics.operating import BINS

NAMES = ("brier", "ece", "auprc")
# Chance alone makes this error larger than it is, and a resample has chance twice over: in simulations no interval
# from resamples held the error of a calibrated model, 0, at any number of samples.
WITHOUT_INTERVAL = frozenset({"ece"})
_TRIALS = 200
_CONFIDENCE = 0.95


def draws(
    probability: Float[np.ndarray, " sample"],
    positive: Bool[np.ndarray, " sample"],
    weights: Int[np.ndarray, "resample sample"],
) -> dict[str, Float[np.ndarray, " resample"]]:
    """The Brier score, the expected calibration error and the average precision of every resample.

    Args:
        probability: probability of the answer yes.
        positive: the truth.
        weights: how often each sample occurs.

    Returns:
        The scores by name; NaN for an empty resample, and for `auprc` if it has no positives.
    """
    counted = weights.astype(np.float64)
    total = counted.sum(axis=1)
    error = np.clip(probability, 0.0, 1.0) - positive
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "brier": counted @ error**2 / total,
            "ece": _calibration_error(probability, positive, counted) / total,
            "auprc": _average_precision(probability, positive, counted),
        }


def error_by_chance(probability: Float[np.ndarray, " sample"]) -> float:
    """The expected calibration error that 95 % of trials stay within if all probabilities are exactly right.

    Samples are independent in these trials; with several of one patient, chance alone makes the error larger.

    Args:
        probability: probability of the answer yes for each sample, at least one.
    """
    generator, count = np.random.default_rng(0), len(probability)
    once, errors = np.ones((1, count)), []
    for _ in range(_TRIALS):
        outcome = generator.random(count) < probability
        errors.append(float(_calibration_error(probability, outcome, once)[0]) / count)
    return float(np.quantile(errors, _CONFIDENCE))


def _calibration_error(
    probability: Float[np.ndarray, " sample"],
    positive: Bool[np.ndarray, " sample"],
    counted: Float[np.ndarray, "resample sample"],
) -> Float[np.ndarray, " resample"]:
    """Samples x |mean probability - share of positives|, summed over bins."""
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    excess = probability - positive
    return np.sum([np.abs(counted[:, place == one] @ excess[place == one]) for one in range(BINS)], axis=0)


def _average_precision(
    probability: Float[np.ndarray, " sample"],
    positive: Bool[np.ndarray, " sample"],
    counted: Float[np.ndarray, "resample sample"],
) -> Float[np.ndarray, " resample"]:
    """The sum over thresholds of precision x increase in recall."""
    if len(probability) == 0:
        return np.full(len(counted), np.nan)
    order = np.argsort(-probability, kind="stable")
    first_of_ties = np.flatnonzero(np.diff(probability[order], prepend=np.inf))
    ordered = counted[:, order]
    hits = np.add.reduceat(ordered * positive[order], first_of_ties, axis=1)
    everything = np.cumsum(np.add.reduceat(ordered, first_of_ties, axis=1), axis=1)
    precision = np.where(everything > 0, np.cumsum(hits, axis=1) / np.maximum(everything, 1), 0.0)
    area: Float[np.ndarray, " resample"] = (precision * hits).sum(axis=1) / hits.sum(axis=1)
    return area
