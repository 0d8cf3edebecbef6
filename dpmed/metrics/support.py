"""How many units a metric rests on: those that have the class, the side or the known value that is rarest in it.

Drawing patients with replacement draws the only one with a finding over and over again, and the interval that results
says nothing of the next such patient. In simulations of 100 samples with a true AUROC of 0.85, intervals of nominally
95 % hold it in 25 % of cases with one positive sample, in 74 % with three, in 86 % with ten and in 95 % with thirty.

In a mean over many classes a rare one matters less: with ten classes of four samples, and with three samples of one of
seven classes, intervals of balanced accuracy, F1, Matthews' correlation and AUROC held the true value in 87 to 97 % of
cases. The units of the rarest class therefore count as often as the mean has other classes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

# Of fewer, what comes out of drawing them again is a handful of values, and 95 % of those is no interval of anything.
FEWEST_UNITS = 10
# Of fewer there are intervals, which say little.
FEW_UNITS = 30
_OVERALL = ("accuracy", "brier", "ece")


def support(
    targets: Shaped[np.ndarray, "sample ..."], groups: Sequence[str], *, task: str, class_names: Sequence[str]
) -> dict[str, int]:
    """Number of units by metric, for tasks with one answer per sample.

    Args:
        targets: class numbers, labels of 0, 1 and -1 (unknown), or numbers (NaN: unknown).
        groups: the unit of each sample.
        task: `classification`, `multi-label` or `regression`.
        class_names: names of the classes, labels or targets.

    Returns:
        For metrics of classes, the units of the rarest class that occurs, times the number of other classes, and for
        accuracy all units; for a label, those of its rarer side; for a number, those where it is known; for means over
        several labels or numbers, the smallest of these times how many they are.
    """
    unit = np.unique(np.asarray(groups), return_inverse=True)[1]
    if task == "classification":
        occurring = np.unique(targets)
        # A single class has no other and yet its recall.
        others = max(1, len(occurring) - 1)
        rarest = others * min((_units(unit, targets == label) for label in occurring), default=0)
        everyone = _units(unit, np.ones(len(unit), bool))
        compared = ("mcc", "balanced_accuracy", "f1", "auroc", "auprc")
        return {**dict.fromkeys(_OVERALL, everyone), **dict.fromkeys(compared, rarest)}
    columns = dict(zip(class_names, targets.T, strict=True))
    if task == "multi-label":
        sides = {name: min(_units(unit, column == side) for side in (0, 1)) for name, column in columns.items()}
        # A label with one side alone has no area and is not part of the mean.
        averaged = [count for count in sides.values() if count]
        rarest = len(averaged) * min(averaged, default=0)
        known = min(_units(unit, column >= 0) for column in columns.values())
        found = {**dict.fromkeys(_OVERALL, known), "auroc": rarest, "auprc": rarest}
        return found | {f"auroc_{name}": count for name, count in sides.items()}
    counts = {name: _units(unit, np.isfinite(column)) for name, column in columns.items()}
    found = {}
    for metric in ("mae", "rmse", "r2"):
        found |= {
            metric: len(counts) * min(counts.values()),
            **{f"{metric}_{name}": count for name, count in counts.items()},
        }
    return found


def table_support(table: Mapping[str, Float[np.ndarray, " sample"]], groups: Sequence[str]) -> dict[str, int]:
    """Number of units by metric, for scores of single masks or images: those that have the score."""
    unit = np.unique(np.asarray(groups), return_inverse=True)[1]
    return {name: _units(unit, np.isfinite(values)) for name, values in table.items()}


def thin(counts: Mapping[str, int]) -> frozenset[str]:
    """The metrics that rest on too few units for an interval."""
    return frozenset(name for name, count in counts.items() if count < FEWEST_UNITS)


def _units(unit: Int[np.ndarray, " sample"], here: Bool[np.ndarray, " sample"]) -> int:
    return len(np.unique(unit[here]))
