"""Metrics of predictions against targets, by scikit-learn, with bootstrap confidence intervals."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from dpmed.errors import InputError

Metric = Callable[[Shaped[np.ndarray, " sample"], Shaped[np.ndarray, " sample"]], float]

DEFAULTS = {"classification": ("accuracy", "mcc", "balanced_accuracy")}


def metric_names(task: str) -> tuple[str, ...]:
    """The metrics that a task has."""
    return DEFAULTS.get(task, ())


def main_metric(task: str) -> str:
    """The metric that a run of this task is judged by."""
    del task
    return "accuracy"


def evaluate(
    names: Sequence[str],
    predictions: Float[np.ndarray, "sample ..."],
    targets: Shaped[np.ndarray, "sample ..."],
    *,
    task: str,
    class_names: Sequence[str],
) -> dict[str, float]:
    """The metrics `names` (or the task's own, if none are named) of logits against class numbers.

    Raises:
        InputError: a metric is unknown.
    """
    del class_names
    chosen = _classes(predictions)
    return {name: _metric(name)(targets, chosen) for name in names or DEFAULTS[task]}


def bootstrap(
    names: Sequence[str],
    predictions: Float[np.ndarray, "sample ..."],
    targets: Shaped[np.ndarray, "sample ..."],
    *,
    task: str,
    class_names: Sequence[str],
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of the same metrics over samples drawn with replacement (Efron, 1979)."""
    del class_names
    if resamples == 0 or len(targets) == 0:
        return {}
    generator = np.random.default_rng(seed)
    chosen = _classes(predictions)
    intervals = {}
    draws = generator.integers(0, len(targets), (resamples, len(targets)))
    for name in names or DEFAULTS[task]:
        metric = _metric(name)
        values = [metric(targets[rows], chosen[rows]) for rows in draws]
        intervals[name] = (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
    return intervals


def _classes(logits: Float[np.ndarray, "sample outputs"]) -> Int[np.ndarray, " sample"]:
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).astype(np.int64)
    return logits.argmax(axis=1)


def _metric(name: str) -> Metric:
    from sklearn import metrics

    known: dict[str, Any] = {
        "accuracy": metrics.accuracy_score,
        "mcc": metrics.matthews_corrcoef,
        "balanced_accuracy": _balanced_accuracy,
    }
    if name not in known:
        raise InputError(f"{name!r} is unknown; valid: {', '.join(known)}", where="[evaluation] metrics")
    return lambda targets, chosen: _quietly(known[name], targets, chosen)


def _quietly(metric: Any, targets: Shaped[np.ndarray, " sample"], chosen: Shaped[np.ndarray, " sample"]) -> float:
    with warnings.catch_warnings():
        # Small samples may hold a single class: the value is then what scikit-learn defines, and no news.
        warnings.simplefilter("ignore")
        return float(metric(targets, chosen))


def _balanced_accuracy(targets: Int[np.ndarray, " sample"], chosen: Int[np.ndarray, " sample"]) -> float:
    # The mean recall over the classes that occur; scikit-learn's warns about predicted classes that do not.
    return float(np.mean([(chosen[targets == label] == label).mean() for label in np.unique(targets)]))
