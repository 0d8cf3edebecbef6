"""Metrics of classification.

All except AUROC are computed from the confusion matrix, for a thousand resamples at once. The functions of
scikit-learn, with which the tests compare, validate their input at each call, which would take a third of a short
training.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

NAMES = ("accuracy", "mcc", "balanced_accuracy", "f1", "auroc")

# With more scores than this in one AUROC, a thousand resamples would take minutes; it then has no interval.
_MOST_SCORES = 1_000_000


def evaluate(
    names: Sequence[str], logits: Float[np.ndarray, "sample outputs"], targets: Int[np.ndarray, " sample"]
) -> dict[str, float]:
    """The metrics `names`; F1 is the mean over classes, AUROC of several classes that of one against the rest."""
    counts = confusion(logits, targets, classes=max(logits.shape[1], 2)).astype(np.float64)[None]
    return {name: auroc(logits, targets) if name == "auroc" else float(_SCORES[name](counts)[0]) for name in names}


def resample(
    names: Sequence[str],
    logits: Float[np.ndarray, "sample outputs"],
    targets: Int[np.ndarray, " sample"],
    *,
    weights: Int[np.ndarray, "resample sample"],
) -> dict[str, Float[np.ndarray, " resample"]]:
    """Values of the metrics with each sample counted as often as `weights` says."""
    classes = max(logits.shape[1], 2)
    cells = np.asarray(targets) * classes + choose(logits)
    matrices = np.zeros((len(weights), classes * classes))
    # A pass over the samples for each resample: one for each cell would take minutes with many classes.
    for matrix, row in zip(matrices, weights, strict=True):
        matrix[:] = np.bincount(cells, weights=row, minlength=classes * classes)
    matrices = matrices.reshape(len(weights), classes, classes)
    found = {name: _SCORES[name](matrices) for name in names if name != "auroc"}
    if "auroc" in names and logits.size <= _MOST_SCORES:
        curves = _curves(logits, targets)
        areas = [weighted_auroc(scores, is_positive, weights) for scores, is_positive in curves]
        found["auroc"] = _mean_of_numbers(np.stack(areas, axis=1))
    return found


def choose(logits: Float[np.ndarray, "sample outputs"]) -> Int[np.ndarray, " sample"]:
    """The class with the largest logit; for a single logit, class 1 if it is positive."""
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).astype(np.int64)
    return logits.argmax(axis=1)


def auroc(logits: Float[np.ndarray, "sample outputs"], targets: Int[np.ndarray, " sample"]) -> float:
    """Area under the ROC curve; for several classes, the mean of one against the rest, over classes that occur.

    NaN if only one class occurs, or if scores are NaN, as after a training that diverged.
    """
    if len(np.unique(targets)) < 2 or np.isnan(logits).any():  # noqa: PLR2004 a curve needs both sides
        return float("nan")
    once = np.ones((1, len(targets)), np.int64)
    return float(np.mean([weighted_auroc(scores, positive, once) for scores, positive in _curves(logits, targets)]))


def _curves(
    logits: Float[np.ndarray, "sample outputs"], targets: Int[np.ndarray, " sample"]
) -> list[tuple[Float[np.ndarray, " sample"], Bool[np.ndarray, " sample"]]]:
    """Scores and which samples are positive: one curve for two classes, otherwise one for each class that occurs."""
    if logits.shape[1] <= 2:  # noqa: PLR2004 two classes
        return [(logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0], targets == 1)]
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances = shifted / shifted.sum(axis=1, keepdims=True)
    return [(chances[:, label], targets == label) for label in np.unique(targets)]


def weighted_auroc(
    scores: Float[np.ndarray, " sample"],
    is_positive: Bool[np.ndarray, " sample"],
    weights: Int[np.ndarray, "resample sample"],
) -> Float[np.ndarray, " resample"]:
    """The area under the ROC curve of samples that occur `weights` times; NaN if one side is empty.

    The area is the probability that a positive sample scores above a negative one, with ties counted half (Hanley &
    McNeil, 1982).

    Args:
        scores: higher for samples that are more likely positive.
        is_positive: the truth.
        weights: how often each sample occurs in each resample.
    """
    order = np.argsort(scores, kind="stable")
    first_of_ties = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    ordered = weights[:, order].astype(np.float64)
    positive = np.add.reduceat(ordered * is_positive[order], first_of_ties, axis=1)
    negative = np.add.reduceat(ordered * ~is_positive[order], first_of_ties, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore"):
        area: Float[np.ndarray, " resample"] = (positive * below).sum(axis=1) / (
            positive.sum(axis=1) * negative.sum(axis=1)
        )
    return area


def report(
    logits: Float[np.ndarray, "sample outputs"], targets: Int[np.ndarray, " sample"], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Precision, recall, F1 and number of samples of each class."""
    counts = confusion(logits, targets, classes=len(class_names)).astype(np.float64)
    hits, chosen, occurring = np.diagonal(counts), counts.sum(axis=0), counts.sum(axis=1)

    def share(of: Float[np.ndarray, " classes"], among: Float[np.ndarray, " classes"]) -> list[float]:
        return np.divide(of, among, out=np.zeros_like(of), where=among > 0).tolist()

    columns = {
        "precision": share(hits, chosen),
        "recall": share(hits, occurring),
        "f1": share(2 * hits, chosen + occurring),
        "samples": occurring.astype(np.int64).tolist(),
    }
    return [
        {"class": name, **{column: values[label] for column, values in columns.items()}}
        for label, name in enumerate(class_names)
    ]


def confusion(
    logits: Float[np.ndarray, "sample outputs"], targets: Int[np.ndarray, " sample"], *, classes: int
) -> Int[np.ndarray, "target choice"]:
    """The confusion matrix: how often each class was predicted as each other."""
    pairs = np.bincount(np.asarray(targets, np.int64) * classes + choose(logits), minlength=classes**2)
    return pairs.reshape(classes, classes)


def _accuracy(counts: Float[np.ndarray, "matrix target choice"]) -> Float[np.ndarray, " matrix"]:
    return _hits(counts).sum(axis=1) / counts.sum(axis=(1, 2))


def _balanced_accuracy(counts: Float[np.ndarray, "matrix target choice"]) -> Float[np.ndarray, " matrix"]:
    """The mean recall of the classes that occur."""
    with np.errstate(invalid="ignore"):
        return _mean_of_numbers(_hits(counts) / counts.sum(axis=2))


def _f1(counts: Float[np.ndarray, "matrix target choice"]) -> Float[np.ndarray, " matrix"]:
    """The mean F1 of the classes that occur or are chosen."""
    with np.errstate(invalid="ignore"):
        return _mean_of_numbers(2 * _hits(counts) / (counts.sum(axis=1) + counts.sum(axis=2)))


def _mcc(counts: Float[np.ndarray, "matrix target choice"]) -> Float[np.ndarray, " matrix"]:
    """Matthews' correlation of several classes (Gorodkin, 2004, eq. 8); 0 where one side has a single class."""
    total, chosen, occurring = counts.sum(axis=(1, 2)), counts.sum(axis=1), counts.sum(axis=2)
    covariance = _hits(counts).sum(axis=1) * total - (chosen * occurring).sum(axis=1)
    spread = (total**2 - (chosen**2).sum(axis=1)) * (total**2 - (occurring**2).sum(axis=1))
    return np.where(spread > 0, covariance / np.sqrt(np.where(spread > 0, spread, 1)), 0.0)


_SCORES = {"accuracy": _accuracy, "mcc": _mcc, "balanced_accuracy": _balanced_accuracy, "f1": _f1}


def _hits(counts: Float[np.ndarray, "matrix target choice"]) -> Float[np.ndarray, "matrix target"]:
    return np.diagonal(counts, axis1=1, axis2=2)


def _mean_of_numbers(values: Float[np.ndarray, "row column"]) -> Float[np.ndarray, " row"]:
    """The mean of each row, ignoring NaN; NaN if a row has nothing else."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis=1) / known.sum(axis=1)
