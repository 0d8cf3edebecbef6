"""Which samples belong to one unit of privacy, and what image-level privacy is worth to a patient with several images.

Accounting protects what the sampler draws and the step clips as a whole. With `unit = "image"` that is one image, and a
patient with k images is k records: by group privacy an (ε, δ) for one record is a (kε, δ (e^{kε} - 1) / (e^ε - 1)) for
all k together (Vadhan, The Complexity of Differential Privacy, 2017, Lemma 2.2, with the sum not rounded up).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from dpmed.data.base import Dataset, UnitName
from dpmed.errors import InputError


@dataclass(frozen=True, kw_only=True)
class UnitSummary:
    """How samples are spread over the coarsest unit that the data set knows of.

    Attributes:
        unit: what that unit is; `image` where the data set does not know more.
        units: how many of them.
        samples: how many samples they have together.
        largest: samples of the unit that has most.
        several: units with more than one sample.
    """

    unit: UnitName
    units: int
    samples: int
    largest: int
    several: int

    def sentence(self, *, epsilon: float, delta: float) -> str | None:
        """What an image-level (ε, δ) means for the coarser unit, for the ledger; None where they are the same."""
        if self.largest <= 1:
            return None
        group_epsilon, group_delta = group_privacy(epsilon, delta, size=self.largest)
        bound = f"({group_epsilon:.4g}, {group_delta:.2g})" if group_delta < 1 else "no (ε, δ) with δ < 1 at all"
        return (
            f"The unit of privacy is the image, but {self.several} of {self.units} {self.unit}s have several images in "
            f"the training split (up to {self.largest}): a {self.unit} is protected less than the stated ε = "
            f"{epsilon:.4g}, δ = {delta:.2g}. Group privacy over {self.largest} images guarantees {bound}. Set "
            f'privacy.unit = "{self.unit}" to protect {self.unit}s.'
        )


def group_privacy(epsilon: float, delta: float, *, size: int) -> tuple[float, float]:
    """What an (ε, δ) for one record guarantees for `size` records together.

    Args:
        epsilon: ε >= 0 of one record.
        delta: δ of one record, in [0, 1].
        size: k >= 1 records that belong together.

    Returns:
        kε, and δ (1 + e^ε + … + e^{(k-1)ε}), which is above 1 where the bound says nothing; infinite past floats.

    Source: Vadhan (2017), Lemma 2.2.
    """
    if size < 1 or epsilon < 0:
        raise ValueError(f"Expected {size=} >= 1 and {epsilon=} >= 0.")
    if delta == 0 or epsilon == 0:
        return size * epsilon, delta * size
    growth = (size - 1) * epsilon + math.log(-math.expm1(-size * epsilon)) - math.log(-math.expm1(-epsilon))
    logarithm = math.log(delta) + growth
    return size * epsilon, math.exp(logarithm) if logarithm < math.log(1e300) else math.inf


def members_by_unit(
    dataset: Dataset, numbers: Int[np.ndarray, " sample"], *, unit: UnitName, max_samples: int | None = None
) -> list[Int[np.ndarray, " _"]]:
    """The samples of each record that the sampler draws.

    Args:
        dataset: with groups.
        numbers: the samples of the training split.
        unit: what a record is: `image`, or the unit that the data set knows of.
        max_samples: of each group only the first so many samples are kept, whatever the unit is; None keeps all.

    Returns:
        For each record its sample numbers in rising order, none empty. Records stand in the order of their first
        sample.

    Raises:
        InputError: the data set cannot tell which samples belong to one such unit.
    """
    known = dataset.info.unit
    if unit not in ("image", known):
        knows = f"images and {known}s only" if known != "image" else "single images only"
        raise InputError(
            f"the data set {dataset.info.name} knows {knows}",
            where=f"[privacy] unit = {unit!r}",
            remedy=f'Choose "{known}".',
        )
    gathered: dict[str, list[int]] = {}
    for number in np.sort(numbers).tolist():
        gathered.setdefault(dataset.groups[number], []).append(number)
    kept = [np.asarray(members[:max_samples], np.int64) for members in gathered.values()]
    if unit == known != "image":
        return kept
    return [np.asarray([number], np.int64) for number in np.sort(np.concatenate(kept or [np.zeros(0, np.int64)]))]


def summarise_units(dataset: Dataset, numbers: Int[np.ndarray, " sample"]) -> UnitSummary:
    """How the samples `numbers`, those that are trained on, are spread over units."""
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
