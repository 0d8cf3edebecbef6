"""Which samples are trained on, chosen by and tested on: whole groups, the classes in like shares, by seed.

No group (patient, lesion, scan) stands in two parts, else the test would measure memory. A split that the source
prescribes is taken as it is; a part that it lacks is cut from its training part.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from dpmed.config.data import DataTable
from dpmed.data.base import Dataset, Split
from dpmed.errors import InputError

_STREAM = 0x5B117  # keeps the split's random numbers apart from all others of the same seed


def split_dataset(dataset: Dataset, config: DataTable, *, seed: int) -> Split:
    """Split a data set.

    Guarantee: every sample is in exactly one part (in at most one where the source prescribes a split), and all
    samples of a group are in the same part (likewise). The same data set, fractions and seed give the same split.

    Args:
        dataset: with groups, and labels to stratify by if it has them.
        config: fractions, and the seed if it is set there.
        seed: fixes the split if the config does not.

    Raises:
        InputError: there are too few groups for three parts.
    """
    generator = np.random.default_rng([_STREAM, seed if config.split_seed is None else config.split_seed])
    official = dataset.official_split
    if official is None:
        everything = np.arange(len(dataset))
        rest, test = _cut(dataset, everything, config.test_fraction, generator)
        train, validation = _cut(dataset, rest, config.validation_fraction, generator)
        return Split(train=train, validation=validation, test=test)
    train, validation, test = np.sort(official.train), np.sort(official.validation), np.sort(official.test)
    if len(test) == 0:
        train, test = _cut(dataset, train, config.test_fraction, generator)
    if len(validation) == 0:
        train, validation = _cut(dataset, train, config.validation_fraction, generator)
    return Split(train=train, validation=validation, test=test)


def _cut(
    dataset: Dataset, numbers: Int[np.ndarray, " sample"], fraction: float, generator: np.random.Generator
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " cut"]]:
    """Take whole groups away until about `fraction` of the samples of each class are gone."""
    groups = _gather([dataset.groups[number] for number in numbers])
    if len(groups) < 2:  # noqa: PLR2004 one for each side
        raise InputError(
            f"{len(groups)} {dataset.info.unit}s cannot be split in two parts",
            where=f"[data] name = {dataset.info.name!r}",
            remedy="Provide more data.",
        )
    labels = np.zeros(len(numbers), np.int64) if dataset.labels is None else np.asarray(dataset.labels)[numbers]
    strata: dict[int, list[Int[np.ndarray, " _"]]] = {}
    for members in groups:
        values, counts = np.unique(labels[members], return_counts=True)
        strata.setdefault(int(values[np.argmax(counts)]), []).append(members)
    chosen: list[Int[np.ndarray, " _"]] = []
    owed = 0.0
    for _, candidates in sorted(strata.items()):
        # What one class could not give or gave too much is settled by the next, so that the total comes out right.
        owed += fraction * sum(map(len, candidates))
        order = generator.permutation(len(candidates))
        for position in order:
            size = len(candidates[position])
            if size / 2 <= owed:
                chosen.append(candidates[position])
                owed -= size
    if not chosen:
        chosen = [min(groups, key=len)]
    if sum(map(len, chosen)) == len(numbers):
        chosen = chosen[:-1]
    cut = np.zeros(len(numbers), bool)
    cut[np.concatenate(chosen)] = True
    return numbers[~cut], numbers[cut]


def _gather(names: Sequence[str]) -> list[Int[np.ndarray, " _"]]:
    """The positions of each name, in order of first appearance."""
    positions: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        positions.setdefault(name, []).append(position)
    return [np.asarray(members, np.int64) for members in positions.values()]
