"""The final test of a run: metrics with intervals, and the tables and picture behind them.

Besides `summary.json`: for classification `classes.csv` and `confusion.csv` with its picture; for several labels
`labels.csv` and for regression `targets.csv`, with a row for each; for segmentation and reconstruction
`test_samples.csv`, with a row per scan or image; `breakdown.csv` with 95 % intervals if a column was asked for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from dpmed.files import write_csv
from dpmed.metrics import classification as class_metrics
from dpmed.metrics import multilabel as label_metrics
from dpmed.metrics import regression as number_metrics
from dpmed.metrics.evaluate import bootstrap, by_sample, evaluate, missing_notes, thin_metrics
from dpmed.metrics.support import FEW_UNITS, FEWEST_UNITS
from dpmed.planning.plan import Plan
from dpmed.training.evaluate import Predictions


def write_test(
    plan: Plan, result: Predictions, folder: Path
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Score the test split, and write the details behind the scores.

    Args:
        plan: the plan of the run.
        result: the predictions for `plan.split.test`, in its order.
        folder: the run folder.

    Returns:
        Metrics with the mean loss, and their 95 % intervals.
    """
    info, config = plan.dataset.info, plan.config
    scored = _score(plan, result, _units(plan))
    if info.task == "classification":
        _write_classes(result, info.class_names, folder)
    elif info.task == "multi-label":
        rows = label_metrics.report(result.predictions, result.targets, info.class_names)
        write_csv(folder / "labels.csv", rows)
    elif info.task == "regression":
        rows = number_metrics.report(result.predictions, result.targets, info.target_names)
        write_csv(folder / "targets.csv", rows)
    else:
        _write_samples(plan, result, folder)
    if config.evaluation.break_down_by is not None:
        _write_breakdown(plan, result, config.evaluation.break_down_by, folder)
    return scored


def interval_notes(
    plan: Plan, result: Predictions, scores: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]
) -> tuple[str, ...]:
    """Why some metrics of the test split have no intervals, and what the intervals of few units are worth."""
    info, groups = plan.dataset.info, _units(plan)
    units, unit = len(np.unique(groups)), info.unit
    if plan.config.evaluation.bootstrap == 0:
        return ()
    if units < FEWEST_UNITS:
        return (f"The test split has {units} {unit}{'s' * (units != 1)}: too few for intervals of its metrics.",)
    little = (f"The test split has only {units} {unit}s: the intervals say little.",) if units < FEW_UNITS else ()
    if scores.keys() <= {*intervals, "loss"}:
        return little
    answers: tuple[Any, ...] = (result.predictions, result.targets, groups.tolist())
    few = thin_metrics(*answers, task=info.task, class_names=info.output_names)
    return (*little, *missing_notes(scores, intervals, units=units, unit=unit, few=few))


def _score(
    plan: Plan, result: Predictions, units: Shaped[np.ndarray, " sample"]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Metrics with the mean loss, and their 95 % intervals, over samples of these units."""
    info, config = plan.dataset.info, plan.config
    answers = config.evaluation.metrics, result.predictions, result.targets
    common: dict[str, Any] = {"task": info.task, "class_names": info.output_names}
    intervals = bootstrap(
        *answers,
        **common,
        resamples=config.evaluation.bootstrap,
        groups=units.tolist(),
    )
    return {"loss": float(result.losses.mean()), **evaluate(*answers, **common)}, intervals


def _units(plan: Plan) -> Shaped[np.ndarray, " sample"]:
    """The unit of each sample of the test split."""
    return np.asarray([plan.dataset.groups[number] for number in plan.split.test.tolist()])


def _write_classes(result: Predictions, class_names: tuple[str, ...], folder: Path) -> None:
    rows = class_metrics.report(result.predictions, result.targets, class_names)
    write_csv(folder / "classes.csv", rows)
    table = class_metrics.confusion(result.predictions, result.targets, classes=len(class_names))
    counts = [
        {"class": name, **dict(zip(class_names, row.tolist(), strict=True))}
        for name, row in zip(class_names, table, strict=True)
    ]
    write_csv(folder / "confusion.csv", counts, ["class", *class_names])
    from dpmed.figures.confusion import plot_confusion

    plot_confusion(table, class_names, folder)


def _write_samples(plan: Plan, result: Predictions, folder: Path) -> None:
    info = plan.dataset.info
    table = by_sample((), result.predictions, result.targets, task=info.task, class_names=info.output_names)
    rows: list[dict[str, Any]] = [
        {"sample": int(number), "loss": float(result.losses[place])}
        # A class that is in neither mask has no Dice, so its cell stays empty.
        | {name: float(column[place]) if np.isfinite(column[place]) else None for name, column in table.items()}
        for place, number in enumerate(plan.split.test)
    ]
    write_csv(folder / "test_samples.csv", rows, ["sample", "loss", *table])


def _write_breakdown(plan: Plan, result: Predictions, column: str, folder: Path) -> None:
    values, units = np.asarray(plan.dataset.columns()[column])[plan.split.test], _units(plan)
    rows = []
    for value in np.unique(values):
        here = values == value
        scores, intervals = _score(plan, result.of(here), units[here])
        counts = {"samples": int(here.sum()), "units": len(np.unique(units[here]))}
        row: dict[str, Any] = {column: str(value) or "unknown", **counts, "loss": scores.pop("loss")}
        for name, score in scores.items():
            low, high = intervals.get(name, (None, None))
            row |= {name: score, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    write_csv(folder / "breakdown.csv", rows)
