"""Metrics of predictions against targets, with bootstrap confidence intervals, by the module of each task."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float, Int, Shaped

from dpmed.errors import InputError
from dpmed.metrics import classification as class_metrics
from dpmed.metrics import images as image_metrics
from dpmed.metrics import multilabel as label_metrics
from dpmed.metrics import regression as number_metrics
from dpmed.metrics import segmentation as mask_metrics
from dpmed.metrics.support import FEWEST_UNITS, support, table_support, thin

# One for all commands, so that the same predictions have the same intervals wherever they are shown.
_SEED = 0
# Weights drawn at once: all of a large test split would fill the memory.
_BLOCK = 1 << 22
# Values of resamples that differ by no more than this share of them are equal.
_ROUNDING = 1e-12
# Tasks whose samples each have a score of their own.
_BY_SAMPLE = ("segmentation", "reconstruction")
# Metrics that are 1 only if every answer is right; a perfect ranking has an AUROC of 1 whatever the answers.
_FLAWLESS = ("accuracy", "dice")
_DEFAULTS = {
    "classification": class_metrics.NAMES,
    "multi-label": label_metrics.NAMES,
    "regression": number_metrics.NAMES,
    "segmentation": ("dice", "dice_with_background"),
    "reconstruction": ("mse", "psnr", "ssim"),
}
_MAIN = {
    "classification": "accuracy",
    "multi-label": "auroc",
    "regression": "mae",
    "segmentation": "dice",
    "reconstruction": "ssim",
}


def metric_names(task: str) -> tuple[str, ...]:
    """The metrics available for a task."""
    return _DEFAULTS[task]


def main_metric(task: str) -> str:
    """The metric by which runs of this task are judged, unless the config names another."""
    return _MAIN[task]


def check_metrics(names: Sequence[str], main: str | None, *, task: str) -> None:
    """Refuse metrics that are not available for a task.

    Raises:
        InputError: a metric is unknown, or the main one is not computed.
    """
    known = metric_names(task)
    asked = names or known
    for name in asked:
        if name not in known:
            problem = f"{name!r} is unknown for {task}; valid: {', '.join(known)}"
            raise InputError(problem, where="evaluation.metrics")
    if main is not None and main not in (*asked, "loss"):
        raise InputError(f"{main!r} is not among the metrics {', '.join(asked)}", where="evaluation.main_metric")


def evaluate(
    names: Sequence[str],
    predictions: Shaped[np.ndarray, "sample ..."],
    targets: Shaped[np.ndarray, "sample ..."],
    *,
    task: str,
    class_names: Sequence[str],
) -> dict[str, float]:
    """The metrics `names` (or all of the task if none are named), without those that are not defined for the data.

    Args:
        names: in `metric_names(task)`.
        predictions: logits `(sample, outputs)`, class numbers `(sample, *space)`, images, or numbers `(sample, target)`
            in the targets' own units.
        targets: class numbers, labels of 0, 1 and -1 (unknown), masks, images, or numbers (NaN: unknown).
        task: the task.
        class_names: names of the data set's classes, labels or targets; if there are several, metrics are also given
            for each.
    """
    wanted = tuple(names) or metric_names(task)
    if task == "classification":
        values = class_metrics.evaluate(wanted, predictions, targets)
    elif task == "multi-label":
        values = label_metrics.evaluate(wanted, predictions, targets, label_names=class_names)
    elif task == "regression":
        values = number_metrics.evaluate(wanted, predictions, targets, target_names=class_names)
    else:
        values = _means(by_sample(wanted, predictions, targets, task=task, class_names=class_names))
    return {name: value for name, value in values.items() if np.isfinite(value)}


def bootstrap(  # noqa: PLR0913 which metrics, of which predictions, resampled how
    names: Sequence[str],
    predictions: Shaped[np.ndarray, "sample ..."],
    targets: Shaped[np.ndarray, "sample ..."],
    *,
    task: str,
    class_names: Sequence[str],
    resamples: int,
    groups: Sequence[str] | None = None,
    seed: int = _SEED,
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of the same metrics over units drawn with replacement (Efron, 1979).

    There are none of fewer than `FEWEST_UNITS` units, nor of metrics that rest on fewer, since a class is rare: what is
    drawn from two scans says nothing of a third.

    Args:
        names: as for `evaluate`.
        predictions: likewise.
        targets: likewise.
        task: likewise.
        class_names: likewise.
        resamples: how many times all units are drawn; 0 for no intervals.
        groups: the unit (patient, lesion, scan) of each sample, all of whose samples are drawn together; None if each
            sample is its own unit.
        seed: seed of the resampling.
    """
    units = len(targets) if groups is None else len(set(groups))
    if resamples == 0 or units < FEWEST_UNITS:
        return {}
    wanted = tuple(names) or metric_names(task)
    units_of = [str(number) for number in range(len(targets))] if groups is None else groups
    if task in _BY_SAMPLE:
        table = by_sample(wanted, predictions, targets, task=task, class_names=class_names)
        few, measure = thin(table_support(table, units_of)), partial(draw_table, table)
    else:
        few = thin(support(targets, units_of, task=task, class_names=class_names))
        measure = partial(draw, wanted, predictions, targets, task=task, class_names=class_names)
    found = intervals_of(draw_units(units_of, measure, resamples=resamples, seed=seed))
    return {name: interval for name, interval in found.items() if name not in few}


def thin_metrics(
    predictions: Shaped[np.ndarray, "sample ..."],
    targets: Shaped[np.ndarray, "sample ..."],
    groups: Sequence[str],
    *,
    task: str,
    class_names: Sequence[str],
) -> frozenset[str]:
    """The metrics that have no interval because they rest on too few units; the arguments are those of `bootstrap`."""
    if task in _BY_SAMPLE:
        table = by_sample((), predictions, targets, task=task, class_names=class_names)
        return thin(table_support(table, groups))
    return thin(support(targets, groups, task=task, class_names=class_names))


def draw_units(
    groups: Sequence[str],
    measure: Callable[[Int[np.ndarray, "resample sample"]], dict[str, Float[np.ndarray, " resample"]]],
    *,
    resamples: int,
    seed: int = _SEED,
) -> dict[str, Float[np.ndarray, " resample"]]:
    """Metrics of each of many resamplings of units, in blocks.

    Args:
        groups: the unit of each sample.
        measure: values of the metrics with each sample counted as often as the weights say.
        resamples: how many times all units are drawn; at least 1.
        seed: seed of the resampling.
    """
    generator = np.random.default_rng(seed)
    _, unit = np.unique(np.asarray(groups), return_inverse=True)
    size = max(1, _BLOCK // len(groups))
    parts = []
    for first in range(0, resamples, size):
        weights = _weights(unit, resamples=min(size, resamples - first), generator=generator)
        parts.append(measure(weights))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def unit_weights(
    groups: Sequence[str], *, resamples: int, generator: np.random.Generator
) -> Int[np.ndarray, "resample sample"]:
    """How often each sample occurs when as many units as there are are drawn with replacement."""
    _, unit = np.unique(np.asarray(groups), return_inverse=True)
    return _weights(unit, resamples=resamples, generator=generator)


def _weights(
    unit: Int[np.ndarray, " sample"], *, resamples: int, generator: np.random.Generator
) -> Int[np.ndarray, "resample sample"]:
    """The same by the number of each sample's unit, counted from 0 without gaps."""
    units = int(unit.max()) + 1
    counts = np.empty((resamples, units), np.int64)
    for row in counts:
        # Drawing units and counting them is several times faster than drawing multinomial numbers.
        row[:] = np.bincount(generator.integers(units, size=units), minlength=units)
    return counts[:, unit]


def draw(
    names: Sequence[str],
    predictions: Shaped[np.ndarray, "sample ..."],
    targets: Shaped[np.ndarray, "sample ..."],
    weights: Int[np.ndarray, "resample sample"],
    *,
    task: str,
    class_names: Sequence[str],
) -> dict[str, Float[np.ndarray, " resample"]]:
    """Values of the metrics of tasks with one answer per sample, each counted as often as `weights` says."""
    if task == "classification":
        return class_metrics.resample(names, predictions, targets, weights=weights)
    if task == "multi-label":
        return label_metrics.resample(names, predictions, targets, label_names=class_names, weights=weights)
    return number_metrics.resample(names, predictions, targets, target_names=class_names, weights=weights)


def draw_table(
    table: Mapping[str, Float[np.ndarray, " sample"]], weights: Int[np.ndarray, "resample sample"]
) -> dict[str, Float[np.ndarray, " resample"]]:
    """Means of per-sample scores, each counted as often as `weights` says; NaN is ignored."""
    found = {}
    for name, values in table.items():
        known = np.isfinite(values)
        count = weights @ known.astype(np.float64)
        total = weights @ np.where(known, values, 0.0)
        found[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def by_sample(
    names: Sequence[str],
    predictions: Shaped[np.ndarray, "sample ..."],
    targets: Shaped[np.ndarray, "sample ..."],
    *,
    task: str,
    class_names: Sequence[str],
) -> dict[str, Float[np.ndarray, " sample"]]:
    """The metrics of `evaluate` for each mask or image; NaN if one is not defined (an absent class)."""
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


def interval_of(values: Float[np.ndarray, " row"]) -> tuple[float, float] | None:
    """The 95 % percentile interval of what resamplings gave; None where they gave no number."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return None
    return float(np.quantile(known, 0.025)), float(np.quantile(known, 0.975))


def intervals_of(draws: Mapping[str, Float[np.ndarray, " resample"]]) -> dict[str, tuple[float, float]]:
    """The intervals of metrics; none for those that are the same in all resamples.

    Flawless predictions are flawless in each resample: an interval of no width would claim to know the error rate.
    """
    found = {}
    for name, values in draws.items():
        interval, known = interval_of(values), values[np.isfinite(values)]
        if interval is not None and np.ptp(known) > _ROUNDING * np.abs(known).max():
            found[name] = interval
    return found


def missing_notes(
    values: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    *,
    units: int,
    unit: str,
    few: Collection[str] = (),
) -> tuple[str, ...]:
    """Why some metrics have no interval although there are enough units, one sentence for each reason.

    Args:
        values: the metrics.
        intervals: their intervals, where there are.
        units: number of units that were resampled.
        unit: what a unit is, such as `patient`.
        few: the metrics that rest on too few units, as of `thin_metrics`.
    """
    names = [name for name in values if name not in intervals and name != "loss"]
    if units < FEWEST_UNITS or not names:
        return ()
    notes, rare, same = [], [name for name in names if name in few], [name for name in names if name not in few]
    if rare:
        notes.append(
            f"No interval for {', '.join(rare)}: fewer than {FEWEST_UNITS} {unit}s have one of the classes or values "
            "that are compared."
        )
    if same:
        note = f"No interval for {', '.join(same)}: every resample of the {units} {unit}s gives the same value."
        if any(values[name] >= 1 - _ROUNDING for name in same if name in _FLAWLESS):
            # The largest error rate at which n answers are flawless with a chance of 5 % (Clopper & Pearson, 1934).
            largest = 100 * (1 - 0.05 ** (1 / units))
            note += f" An error rate of up to {largest:.2g} % is still compatible with flawless answers (95 %)."
        notes.append(note)
    return tuple(notes)
