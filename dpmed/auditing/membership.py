"""Membership inference on the training set: on all of it, and on each class and subgroup, where attacks concentrate.

All samples of a patient are members or none is, so patients are told apart, not samples: those of one patient are no
independent evidence, and an interval that counts them as such is too narrow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from dpmed.auditing.scores import Separation, separate

# With fewer on either side, nothing can be said.
FEWEST = 10
# A column with more values does not group samples but identifies them.
_MOST_VALUES = 20


@dataclass(frozen=True, kw_only=True)
class Group:
    """Samples with something in common.

    Attributes:
        column: what they are grouped by: `class` or a column of the data set; empty for all samples.
        value: the value that they share.
        members: number of units in the training set.
        non_members: number of units in the test split.
        separation: separation by the mean loss of a unit's samples; None with fewer than ten units of either.
    """

    column: str
    value: str
    members: int
    non_members: int
    separation: Separation | None

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        counts: dict[str, Any] = {"members": self.members, "non_members": self.non_members}
        named = {"column": self.column, "value": self.value, **counts} if self.column else counts
        return {**named, **({} if self.separation is None else self.separation.to_json())}


def attack(
    losses: Float[np.ndarray, " sample"],
    member: Bool[np.ndarray, " sample"],
    columns: Mapping[str, np.ndarray],
    units: Sequence[str],
) -> tuple[Group, ...]:
    """A loss-based attack: units whose samples have a smaller mean loss are taken to be members.

    Args:
        losses: loss of the final model for each sample.
        member: whether each sample is in the training set.
        columns: for each grouping, the value of every sample; columns with only one value or more than 20 are skipped.
        units: the unit (patient, lesion, scan) of each sample.

    Returns:
        The results for all samples, then for each group.

    Source: Yeom, Giacomelli, Fredrikson & Jha (2018).
    """
    unit = np.unique(np.asarray(units), return_inverse=True)[1]
    found = [_group("", "", losses, member, unit)]
    for name, values in columns.items():
        texts = np.asarray(values).astype(str)
        known = np.unique(texts)
        if 1 < len(known) <= _MOST_VALUES:
            chosen = ((str(value), texts == value) for value in known)
            found += [
                _group(name, value or "unknown", losses[here], member[here], unit[here]) for value, here in chosen
            ]
    return tuple(found)


def _group(
    column: str,
    value: str,
    losses: Float[np.ndarray, " sample"],
    member: Bool[np.ndarray, " sample"],
    unit: Int[np.ndarray, " sample"],
) -> Group:
    # A split that the source prescribes may put a unit on both sides; each side of it then counts by itself.
    sides = 2 * unit + member
    _, first, place, count = np.unique(sides, return_index=True, return_inverse=True, return_counts=True)
    scores, inside = -np.bincount(place, losses) / count, member[first]
    members, others = int(inside.sum()), int((~inside).sum())
    enough = min(members, others) >= FEWEST
    return Group(
        column=column,
        value=value,
        members=members,
        non_members=others,
        separation=separate(scores, inside) if enough else None,
    )
