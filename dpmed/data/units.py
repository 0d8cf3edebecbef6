"""Which samples belong to one unit of privacy, and how many a unit has.

Accounting protects what the sampler draws and the step clips as one. With `unit = "image"` that is one image, and a
patient with k images is k records, protected together by group privacy only (`dpmed.privacy.ledger.group_privacy`).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from dpmed.config.privacy import Unit
from dpmed.data.base import Dataset
from dpmed.errors import InputError

# How users can specify which samples belong together.
_UNIT_REMEDIES = {
    "folder": "Set data.group_pattern to a regular expression that finds the {unit} in the file names, and data.unit; "
    "or list the files with their patients in metadata.csv.",
    "table": "Name the column that tells the {unit} as data.patient.",
    "nnunet": "Set data.group_pattern to a regular expression that finds the {unit} in the names of the cases.",
    "custom": "Make the factory's data set say which samples belong together: info.unit and groups.",
    "ham10000": 'HAM10000 only identifies lesions: unit = "lesion" protects a lesion; a patient may have several.',
}


@dataclass(frozen=True, kw_only=True)
class UnitSummary:
    """How samples are distributed over the coarsest unit known to the data set.

    Attributes:
        unit: the kind of unit; `image` if the data set knows nothing coarser.
        units: number of units.
        samples: total number of samples.
        largest: largest number of samples of a unit.
        several: number of units with more than one sample.
    """

    unit: Unit
    units: int
    samples: int
    largest: int
    several: int

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON types, for `internal.json`: exact numbers about private data."""
        return asdict(self)


def members_by_unit(
    dataset: Dataset, numbers: Int[np.ndarray, " sample"], *, unit: Unit, max_samples: int | None = None
) -> list[Int[np.ndarray, " _"]]:
    """The samples of each record that the sampler draws.

    Args:
        dataset: a data set with groups.
        numbers: the samples of the training split.
        unit: what a record is: `image`, or the unit known to the data set.
        max_samples: keep only this many (the first) samples of each group, whatever the unit is; None keeps all.

    Returns:
        The sample numbers of each record in increasing order, none empty. Records are in the order of their first
        sample.

    Raises:
        InputError: the data set cannot tell which samples belong to one such unit.
    """
    known = dataset.info.unit
    if unit not in ("image", known):
        raise InputError(
            f"{unit!r} was requested, but nothing in the data set {dataset.info.name} tells which images share a {unit}"
            + (f", only which share a {known}" if known != "image" else ""),
            where="privacy.unit",
            remedy=unit_remedy(dataset.info.name, unit),
        )
    gathered: dict[str, list[int]] = {}
    for number in np.sort(numbers).tolist():
        gathered.setdefault(dataset.groups[number], []).append(number)
    kept = [np.asarray(members[:max_samples], np.int64) for members in gathered.values()]
    if unit == known != "image":
        return kept
    return [np.asarray([number], np.int64) for number in np.sort(np.concatenate(kept or [np.zeros(0, np.int64)]))]


def unit_remedy(name: str, unit: str) -> str:
    """How users can specify which samples of a data set of this name share a unit."""
    fallback = "These files do not tell; protecting less than the {unit} is a decision to be made knowingly."
    return _UNIT_REMEDIES.get(name, fallback).format(unit=unit)


def summarise_units(dataset: Dataset, numbers: Int[np.ndarray, " sample"]) -> UnitSummary:
    """How the training samples `numbers` are distributed over units."""
    counts: dict[str, int] = {}
    for number in numbers.tolist():
        group = dataset.groups[number]
        counts[group] = counts.get(group, 0) + 1
    return UnitSummary(
        unit=dataset.info.unit,
        units=len(counts),
        samples=len(numbers),
        largest=max(counts.values(), default=0),
        several=sum(count > 1 for count in counts.values()),
    )
