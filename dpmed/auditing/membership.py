"""Membership inference on the training set: on all of it, and on each class and subgroup, where attacks concentrate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from dpmed.auditing.scores import Separation, separate

# With fewer on either side, nothing can be said.
_FEWEST = 10
# A column with more values does not group samples but identifies them.
_MOST_VALUES = 20


@dataclass(frozen=True, kw_only=True)
class Group:
    """Samples with something in common.

    Attributes:
        column: what they are grouped by: `class` or a column of the data set; empty for all samples.
        value: the value that they share.
        members: number of samples from the training set.
        non_members: number of samples from the test split.
        separation: separation by the loss; None with fewer than ten of either.
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
) -> tuple[Group, ...]:
    """A loss-based attack: samples with smaller loss are taken to be members.

    Args:
        losses: loss of the final model for each sample.
        member: whether each sample is in the training set.
        columns: for each grouping, the value of every sample; columns with only one value or more than 20 are skipped.

    Returns:
        The results for all samples, then for each group.

    Source: Yeom, Giacomelli, Fredrikson & Jha (2018).
    """
    found = [_group("", "", losses, member)]
    for name, values in columns.items():
        texts = np.asarray(values).astype(str)
        known = np.unique(texts)
        if 1 < len(known) <= _MOST_VALUES:
            chosen = ((str(value), texts == value) for value in known)
            found += [_group(name, value or "unknown", losses[here], member[here]) for value, here in chosen]
    return tuple(found)


def _group(column: str, value: str, losses: Float[np.ndarray, " sample"], member: Bool[np.ndarray, " sample"]) -> Group:
    members, others = int(member.sum()), int((~member).sum())
    enough = min(members, others) >= _FEWEST
    return Group(
        column=column,
        value=value,
        members=members,
        non_members=others,
        separation=separate(-losses, member) if enough else None,
    )
