"""Metrics of predictions against targets, with bootstrap confidence intervals: the task's own room is asked."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

from dpmed.errors import InputError
from dpmed.metrics import classification as class_metrics
from dpmed.metrics import images as image_metrics
from dpmed.metrics import segmentation as mask_metrics

_DEFAULTS = {
    "classification": class_metrics.NAMES,
    "segmentation": ("dice", "dice_with_background"),
    "reconstruction": ("mse", "psnr", "ssim"),
}
_MAIN = {"classification": "accuracy", "segmentation": "dice", "reconstruction": "ssim"}


def metric_names(task: str) -> tuple[str, ...]:
    """The metrics that a task has."""
    return _DEFAULTS[task]


def main_metric(task: str) -> str:
    """The metric that a run of this task is judged by, unless its config names another."""
    return _MAIN[task]


def check_metrics(names: Sequence[str], main: str | None, *, task: str) -> None:
    """Refuse metrics that a task does not have.

    Raises:
        InputError: a metric is unknown, or the main one is not computed.
    """
    known = metric_names(task)
    asked = names or known
    for name in asked:
        if name not in known:
            problem = f"{name!r} is unknown for {task}; valid: {', '.join(known)}"
            raise InputError(problem, where="[evaluation] metrics")
    if main is not None and main not in (*asked, "loss"):
        raise InputError(f"{main!r} is not among the metrics {', '.join(asked)}", where="[evaluation] main_metric")


def evaluate(
    names: Sequence[str],
    predictions: Shaped[np.ndarray, "sample ..."],
    targets: Shaped[np.ndarray, "sample ..."],
    *,
    task: str,
    class_names: Sequence[str],
) -> dict[str, float]:
    """The metrics `names` (or all of the task, if none are named); one that is not defined for the data is left out.

    Args:
        names: in `metric_names(task)`.
        predictions: logits `(sample, outputs)`, class numbers `(sample, *space)`, or images.
        targets: class numbers, masks, or images.
        task: which.
        class_names: of the data set; Dice is also given by class.
    """
    wanted = tuple(names) or metric_names(task)
    if task == "classification":
        values = class_metrics.evaluate(wanted, predictions, targets)
    else:
        values = _means(by_sample(wanted, predictions, targets, task=task, class_names=class_names))
    return {name: value for name, value in values.items() if np.isfinite(value)}


def bootstrap(
    names: Sequence[str],
    predictions: Shaped[np.ndarray, "sample ..."],
    targets: Shaped[np.ndarray, "sample ..."],
    *,
    task: str,
    class_names: Sequence[str],
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of the same metrics over samples drawn with replacement (Efron, 1979)."""
    if resamples == 0 or len(targets) == 0:
        return {}
    wanted = tuple(names) or metric_names(task)
    generator = np.random.default_rng(seed)
    if task == "classification":
        draws = class_metrics.resample(wanted, predictions, targets, resamples=resamples, generator=generator)
    else:
        table = by_sample(wanted, predictions, targets, task=task, class_names=class_names)
        rows = generator.integers(0, len(targets), (resamples, len(targets)))
        draws = {name: _means_of_rows(values[rows]) for name, values in table.items()}
    return {name: interval for name, values in draws.items() if (interval := _interval(values)) is not None}


def by_sample(
    names: Sequence[str],
    predictions: Shaped[np.ndarray, "sample ..."],
    targets: Shaped[np.ndarray, "sample ..."],
    *,
    task: str,
    class_names: Sequence[str],
) -> dict[str, Float[np.ndarray, " sample"]]:
    """The metrics of `evaluate` for every single mask or image; NaN where one is not defined (an absent class)."""
    wanted = tuple(names) or metric_names(task)
    if task == "segmentation":
        return mask_metrics.by_sample(wanted, predictions, targets, class_names=class_names)
    return image_metrics.by_sample(wanted, predictions, targets)


def _means(table: dict[str, Float[np.ndarray, " sample"]]) -> dict[str, float]:
    return {name: float(_means_of_rows(values[None])[0]) for name, values in table.items()}


def _means_of_rows(values: Float[np.ndarray, "row sample"]) -> Float[np.ndarray, " row"]:
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    count = known.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _interval(values: Float[np.ndarray, " row"]) -> tuple[float, float] | None:
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return None
    return float(np.quantile(known, 0.025)), float(np.quantile(known, 0.975))
