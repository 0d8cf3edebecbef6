"""Metrics of regression, in the targets' own units; unknown targets (NaN) are ignored."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

NAMES = ("mae", "rmse", "r2")


def evaluate(
    names: Sequence[str],
    values: Float[np.ndarray, "sample target"],
    targets: Float[np.ndarray, "sample target"],
    *,
    target_names: Sequence[str],
) -> dict[str, float]:
    """The metrics `names`.

    Args:
        names: `mae` (mean absolute error), `rmse` (root of the mean squared error), `r2` (1 - squared error / squared
            deviation from the mean of the targets; below 0 if that mean would have been the better guess).
        values: predicted values.
        targets: true values; NaN if unknown.
        target_names: name of each target.

    Returns:
        For one target, its metrics; for several, the means over targets and `<metric>_<target>` for each. NaN if a
        metric is not defined.
    """
    once = np.ones((1, len(targets)), np.int64)
    found = resample(names, values, targets, target_names=target_names, weights=once)
    return {name: float(column[0]) for name, column in found.items()}


def resample(
    names: Sequence[str],
    values: Float[np.ndarray, "sample target"],
    targets: Float[np.ndarray, "sample target"],
    *,
    target_names: Sequence[str],
    weights: Int[np.ndarray, "resample sample"],
) -> dict[str, Float[np.ndarray, " resample"]]:
    """Values of the same metrics with each sample counted `weights` times."""
    tables = [_of_target(values[:, number], targets[:, number], weights) for number in range(len(target_names))]
    found = {name: np.mean([table[name] for table in tables], axis=0) for name in names}
    if len(tables) > 1:
        for target, table in zip(target_names, tables, strict=True):
            found |= {f"{name}_{target}": table[name] for name in names}
    return found


def report(
    values: Float[np.ndarray, "sample target"],
    targets: Float[np.ndarray, "sample target"],
    target_names: Sequence[str],
) -> list[dict[str, Any]]:
    """The metrics of each target (None if one is not defined), and the number of known samples."""
    rows = []
    for number, name in enumerate(target_names):
        scores = evaluate(NAMES, values[:, [number]], targets[:, [number]], target_names=(name,))
        known = int(np.isfinite(targets[:, number]).sum())
        defined = {metric: score if np.isfinite(score) else None for metric, score in scores.items()}
        rows.append({"target": name, **defined, "known": known})
    return rows


def _of_target(
    values: Float[np.ndarray, " sample"],
    targets: Float[np.ndarray, " sample"],
    weights: Int[np.ndarray, "resample sample"],
) -> Mapping[str, Float[np.ndarray, " resample"]]:
    known = np.isfinite(targets)
    wanted, counted = targets[known].astype(np.float64), weights[:, known].astype(np.float64)
    errors = values[known].astype(np.float64) - wanted
    # Relative to the overall mean, to avoid cancellation in the difference below.
    centred = wanted - (wanted.mean() if len(wanted) else 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        count = counted.sum(axis=1)
        squared = counted @ errors**2
        spread = counted @ centred**2 - (counted @ centred) ** 2 / count
        return {
            "mae": counted @ np.abs(errors) / count,
            "rmse": np.sqrt(squared / count),
            "r2": np.where(spread > 0, 1 - squared / spread, np.nan),
        }
