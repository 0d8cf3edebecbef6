"""Metrics of classification, by scikit-learn."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

NAMES = ("accuracy", "mcc", "balanced_accuracy", "f1", "auroc")

# Above so many scores in one AUROC, its thousand resamplings would take minutes; it then has no interval.
_MOST_SCORES = 200_000


def evaluate(
    names: Sequence[str], logits: Float[np.ndarray, "sample outputs"], targets: Int[np.ndarray, " sample"]
) -> dict[str, float]:
    """The metrics `names`; F1 is the mean over classes, AUROC of several classes the mean of one against the rest."""
    chosen = choose(logits)
    weights = np.ones(len(targets))
    return {
        name: auroc(logits, targets) if name == "auroc" else _weighted(name, targets, chosen, weights) for name in names
    }


def resample(
    names: Sequence[str],
    logits: Float[np.ndarray, "sample outputs"],
    targets: Int[np.ndarray, " sample"],
    *,
    resamples: int,
    generator: np.random.Generator,
) -> dict[str, Float[np.ndarray, " resample"]]:
    """Values of the metrics over samples drawn with replacement."""
    # All metrics but AUROC depend only on how often each pair of target and choice occurs: drawing those counts is
    # drawing the samples, at a fraction of the work.
    pairs, counts = np.unique(np.stack([targets, choose(logits)], axis=1), axis=0, return_counts=True)
    draws = generator.multinomial(len(targets), counts / counts.sum(), size=resamples).astype(np.float64)
    found = {
        name: np.array([_weighted(name, pairs[:, 0], pairs[:, 1], weights) for weights in draws])
        for name in names
        if name != "auroc"
    }
    if "auroc" in names and logits.size <= _MOST_SCORES:
        rows = generator.integers(0, len(targets), (resamples, len(targets)))
        found["auroc"] = np.array([auroc(logits[drawn], targets[drawn]) for drawn in rows])
    return found


def choose(logits: Float[np.ndarray, "sample outputs"]) -> Int[np.ndarray, " sample"]:
    """The class of the largest logit; with a single one, class 1 where it is positive."""
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).astype(np.int64)
    return logits.argmax(axis=1)


def auroc(logits: Float[np.ndarray, "sample outputs"], targets: Int[np.ndarray, " sample"]) -> float:
    """Area under the ROC curve; of several classes the mean of one against the rest, over classes that occur.

    NaN where only one class occurs.
    """
    from sklearn.metrics import roc_auc_score

    present = np.unique(targets)
    if len(present) < 2:  # noqa: PLR2004 a curve needs both sides
        return float("nan")
    if logits.shape[1] <= 2:  # noqa: PLR2004 two classes
        scores = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        return float(roc_auc_score(targets, scores))
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances = shifted / shifted.sum(axis=1, keepdims=True)
    return float(np.mean([roc_auc_score(targets == label, chances[:, label]) for label in present]))


def report(
    logits: Float[np.ndarray, "sample outputs"], targets: Int[np.ndarray, " sample"], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class, and how many samples it has."""
    from sklearn.metrics import precision_recall_fscore_support

    labels = list(range(len(class_names)))
    columns = precision_recall_fscore_support(targets, choose(logits), labels=labels, zero_division=0.0)
    names = ("precision", "recall", "f1", "samples")
    return [
        {
            "class": class_names[label],
            **{name: column[label].item() for name, column in zip(names, columns, strict=True)},
        }
        for label in labels
    ]


def confusion(
    logits: Float[np.ndarray, "sample outputs"], targets: Int[np.ndarray, " sample"], *, classes: int
) -> Int[np.ndarray, "target choice"]:
    """How many samples of each class were taken for which."""
    from sklearn.metrics import confusion_matrix

    return np.asarray(confusion_matrix(targets, choose(logits), labels=list(range(classes))))


def _weighted(
    name: str,
    targets: Shaped[np.ndarray, " pair"],
    chosen: Shaped[np.ndarray, " pair"],
    weights: Float[np.ndarray, " pair"],
) -> float:
    from sklearn import metrics

    kept = weights > 0
    targets, chosen, weights = targets[kept], chosen[kept], weights[kept]
    if name == "balanced_accuracy":
        # The mean recall over the classes that occur; scikit-learn's warns about chosen classes that do not.
        hits = weights * (targets == chosen)
        return float(
            np.mean([hits[targets == label].sum() / weights[targets == label].sum() for label in np.unique(targets)])
        )
    with warnings.catch_warnings():
        # Small samples may hold a single class: the value is then what scikit-learn defines, and no news.
        warnings.simplefilter("ignore")
        if name == "f1":
            return float(metrics.f1_score(targets, chosen, average="macro", sample_weight=weights, zero_division=0.0))
        known: dict[str, Any] = {"accuracy": metrics.accuracy_score, "mcc": metrics.matthews_corrcoef}
        return float(known[name](targets, chosen, sample_weight=weights))
