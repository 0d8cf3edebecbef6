"""Metrics of segmentation: Dice of every mask (in 3D: of every scan) and class."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer


def by_sample(
    names: Sequence[str],
    masks: Integer[np.ndarray, " sample *space"],
    targets: Integer[np.ndarray, " sample *space"],
    *,
    class_names: Sequence[str],
) -> dict[str, Float[np.ndarray, " sample"]]:
    """The metrics `names` for every mask, and Dice for every class.

    Args:
        names: `dice`, the mean over all classes but the first (the background), and `dice_with_background`.
        masks: predicted class numbers.
        targets: true class numbers.
        class_names: name of each class number.

    Returns:
        The metrics, and `dice_<class>` for each class; NaN if the class is in neither mask, and then not part of the
        means.
    """
    table = np.stack(
        [dice(mask, target, classes=len(class_names)) for mask, target in zip(masks, targets, strict=True)]
    )
    means = {"dice": _mean(table[:, 1:]), "dice_with_background": _mean(table)}
    classes = {f"dice_{name}": table[:, number] for number, name in enumerate(class_names)}
    return {**{name: means[name] for name in names}, **classes}


def dice(
    mask: Integer[np.ndarray, "*space"], target: Integer[np.ndarray, "*space"], *, classes: int
) -> Float[np.ndarray, " classes"]:
    """2 |mask and target| / (|mask| + |target|) for each class; NaN if the class is in neither (Dice, 1945)."""
    pairs = np.bincount(target.ravel().astype(np.int64) * classes + mask.ravel(), minlength=classes**2)
    table = pairs.reshape(classes, classes)
    sizes = table.sum(axis=0) + table.sum(axis=1)
    return np.where(sizes > 0, 2 * np.diag(table) / np.maximum(sizes, 1), np.nan)


def _mean(table: Float[np.ndarray, "sample class"]) -> Float[np.ndarray, " sample"]:
    known = np.isfinite(table)
    total = np.where(known, table, 0.0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)
