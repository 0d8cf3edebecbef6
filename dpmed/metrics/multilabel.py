"""Metrics of several labels per sample, each of which is present, absent or unknown; unknown ones are ignored."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from dpmed.metrics.classification import weighted_auroc

NAMES = ("auroc",)
# Number of values processed at once.
_BLOCK = 1 << 22
# With more scores than this, a thousand resamples would take minutes; there is then no interval.
_MOST_SCORES = 1_000_000


def evaluate(
    names: Sequence[str],
    logits: Float[np.ndarray, "sample label"],
    targets: Integer[np.ndarray, "sample label"],
    *,
    label_names: Sequence[str],
) -> dict[str, float]:
    """The metrics `names`.

    Args:
        names: `auroc`, the mean over the labels that have both sides.
        logits: one for each label.
        targets: 1, 0, or -1 for unknown.
        label_names: name of each label.

    Returns:
        The metrics, and `auroc_<label>` for each label; NaN if one side is empty (or if no label has both).
    """
    once = np.ones((1, len(targets)), np.int64)
    return {name: float(values[0]) for name, values in _aurocs(names, logits, targets, once, label_names).items()}


def resample(
    names: Sequence[str],
    logits: Float[np.ndarray, "sample label"],
    targets: Integer[np.ndarray, "sample label"],
    *,
    label_names: Sequence[str],
    weights: Int[np.ndarray, "resample sample"],
) -> dict[str, Float[np.ndarray, " resample"]]:
    """Values of the same metrics with each sample counted `weights` times; empty for very many scores."""
    if logits.size > _MOST_SCORES:
        return {}
    size = max(1, _BLOCK // max(len(targets), 1))
    parts = [
        _aurocs(names, logits, targets, weights[first : first + size], label_names)
        for first in range(0, len(weights), size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def report(
    logits: Float[np.ndarray, "sample label"],
    targets: Integer[np.ndarray, "sample label"],
    label_names: Sequence[str],
) -> list[dict[str, Any]]:
    """AUROC of each label (None if one side is empty), and the numbers of positive, negative and unknown samples."""
    scores = evaluate(("auroc",), logits, targets, label_names=label_names)
    rows = []
    for number, name in enumerate(label_names):
        area = scores[f"auroc_{name}"]
        counts = {side: int((targets[:, number] == value).sum()) for side, value in _SIDES.items()}
        rows.append({"label": name, "auroc": area if np.isfinite(area) else None, **counts})
    return rows


_SIDES = {"positive": 1, "negative": 0, "unknown": -1}


def _aurocs(
    names: Sequence[str],
    logits: Float[np.ndarray, "sample label"],
    targets: Integer[np.ndarray, "sample label"],
    weights: Int[np.ndarray, "resample sample"],
    label_names: Sequence[str],
) -> dict[str, Float[np.ndarray, " resample"]]:
    if "auroc" not in names:
        return {}
    areas = []
    for number in range(len(label_names)):
        known: Bool[np.ndarray, " sample"] = targets[:, number] >= 0
        scores, is_positive = logits[known, number], targets[known, number] == 1
        if is_positive.all() or not is_positive.any():
            areas.append(np.full(len(weights), np.nan))
        else:
            areas.append(weighted_auroc(scores, is_positive, weights[:, known]))
    table = np.stack(areas)
    count = np.isfinite(table).sum(axis=0)
    total = np.where(np.isfinite(table), table, 0.0).sum(axis=0)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return {"auroc": mean, **{f"auroc_{name}": area for name, area in zip(label_names, areas, strict=True)}}
