"""Membership inference on a training set itself: all of it, and each class and subgroup, where attacks concentrate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from dpmed.auditing.scores import Separation, separate

# Fewer on either side say nothing.
_FEWEST = 10
# A column of more values is no grouping, but a number of each sample.
_MOST_VALUES = 20


@dataclass(frozen=True, kw_only=True)
class Group:
    """Samples with something in common.

    Attributes:
        column: by which they are grouped: `class`, or a column of the data set; empty for all.
        value: that they share.
        members: of the training set.
        non_members: of the test split.
        separation: by the loss; None with fewer than ten of either.
    """

    column: str
    value: str
    members: int
    non_members: int
    separation: Separation | None

    def to_json(self) -> dict[str, Any]:
        """As JSON's types."""
        counts: dict[str, Any] = {"members": self.members, "non_members": self.non_members}
        named = {"column": self.column, "value": self.value, **counts} if self.column else counts
        return {**named, **({} if self.separation is None else self.separation.to_json())}


def attack(
    losses: Float[np.ndarray, " sample"],
    member: Bool[np.ndarray, " sample"],
    columns: Mapping[str, np.ndarray],
) -> tuple[Group, ...]:
    """A loss-based attack: who has the smaller loss took part.

    Args:
        losses: of the final model, for each sample.
        member: whether it is of the training set.
        columns: for each grouping the value of every sample; those with one value, or more than 20, are passed over.

    Returns:
        All samples, then group after group.

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
