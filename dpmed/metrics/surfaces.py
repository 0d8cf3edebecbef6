"""Distances between the surfaces of masks: surface Dice at a tolerance, and the 95 % Hausdorff distance.

The surface of a mask consists of its voxels with a face to the outside; everything beyond the image is outside.
Distances are between voxel centres. Source: Nikolov et al., Journal of Medical Internet Research 23 (2021), for surface
Dice; Maier-Hein et al., Metrics reloaded, Nature Methods 21 (2024), for both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer


@dataclass(frozen=True, kw_only=True)
class SurfaceScores:
    """How close the surfaces of two masks are.

    Attributes:
        surface_dice: the fraction of both surfaces that lies within the tolerance of the other; 0 if one mask is empty,
            NaN if both are.
        hausdorff95: the larger of the two 95th percentiles of distances from one surface to the other; NaN if a mask is
            empty.
    """

    surface_dice: float
    hausdorff95: float


def surface_scores(
    mask: Bool[np.ndarray, "*space"],
    target: Bool[np.ndarray, "*space"],
    *,
    spacing: Sequence[float],
    tolerance: float,
) -> SurfaceScores:
    """Compare two masks of one class.

    Args:
        mask: predicted mask.
        target: true mask.
        spacing: size of a voxel along each axis, above 0.
        tolerance: in the unit of `spacing`, at least 0.
    """
    if not mask.any() or not target.any():
        empty = not mask.any() and not target.any()
        return SurfaceScores(surface_dice=np.nan if empty else 0.0, hausdorff95=np.nan)
    # Only the region that holds either mask, since scans are mostly background.
    box = tuple(slice(*_reach(mask | target, axis)) for axis in range(mask.ndim))
    to_target, to_mask = _distances(_surface(mask)[box], _surface(target)[box], spacing)
    near = int((to_target <= tolerance).sum()) + int((to_mask <= tolerance).sum())
    return SurfaceScores(
        surface_dice=near / (len(to_target) + len(to_mask)),
        hausdorff95=float(max(np.percentile(to_target, 95), np.percentile(to_mask, 95))),
    )


def by_sample(
    masks: Integer[np.ndarray, " sample *space"],
    targets: Integer[np.ndarray, " sample *space"],
    *,
    class_names: Sequence[str],
    spacings: Float[np.ndarray, "sample axis"],
    tolerance: float,
) -> dict[str, Float[np.ndarray, " sample"]]:
    """`surface_dice` and `hausdorff95` of every sample: the mean over all classes but the first, and for each class.

    Args:
        masks: predicted class numbers.
        targets: true class numbers.
        class_names: name of each class; the first is the background.
        spacings: size of a voxel of each sample.
        tolerance: in the same unit.

    Returns:
        The scores by name; NaN if a class has no such score.
    """
    found = np.full((2, len(masks), max(len(class_names) - 1, 0)), np.nan)
    for place, (mask, target, spacing) in enumerate(zip(masks, targets, spacings, strict=True)):
        for number in range(1, len(class_names)):
            scores = surface_scores(mask == number, target == number, spacing=spacing.tolist(), tolerance=tolerance)
            found[:, place, number - 1] = scores.surface_dice, scores.hausdorff95
    table = {}
    for name, values in zip(("surface_dice", "hausdorff95"), found, strict=True):
        known = np.isfinite(values)
        total = np.where(known, values, 0.0).sum(axis=1)
        table[name] = np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)
        table |= {f"{name}_{label}": values[:, number] for number, label in enumerate(class_names[1:])}
    return table


def _surface(mask: Bool[np.ndarray, "*space"]) -> Bool[np.ndarray, "*space"]:
    from scipy.ndimage import binary_erosion

    return np.asarray(mask & ~binary_erosion(mask), bool)


def _reach(mask: Bool[np.ndarray, "*space"], axis: int) -> tuple[int, int]:
    places = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
    return int(places[0]), int(places[-1]) + 1


def _distances(
    first: Bool[np.ndarray, "*space"], second: Bool[np.ndarray, "*space"], spacing: Sequence[float]
) -> tuple[Float[np.ndarray, " first"], Float[np.ndarray, " second"]]:
    """The distance from each surface voxel of one mask to the nearest of the other."""
    from scipy.ndimage import distance_transform_edt

    to_second = np.asarray(distance_transform_edt(~second, sampling=spacing), np.float64)
    to_first = np.asarray(distance_transform_edt(~first, sampling=spacing), np.float64)
    return to_second[first], to_first[second]
