"""Splits samples into training, validation and test sets: whole groups, by seed.

No group (patient, lesion, scan) is in two parts, since the test would then measure memorisation. A split prescribed by
the source is used unchanged; a part that it lacks is cut from its training part.

With `keyed-hash`, each group's part depends only on its own name and the key. Adding or removing a patient moves nobody
else, so a patient in the test set stays there while the data set grows, and ε, which compares training sets that differ
in one unit, means what it seems to mean. With `stratified`, all parts have the same class proportions, but adding or
removing a group can reassign the others: ε then holds conditionally on the split.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from dpmed.config.data import DataTable
from dpmed.data.base import Dataset, Split
from dpmed.data.identity import names_of
from dpmed.errors import InputError

# Names of the parts in tables and folders.
PART_NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_STREAM = 0x5B117  # keeps the split's random numbers apart from all others of the same seed


def split_dataset(dataset: Dataset, config: DataTable, *, seed: int) -> Split:
    """Split a data set.

    Guarantee: every sample is in exactly one part (in at most one if the source prescribes a split), and all samples of
    a group are in the same part (likewise). The same data set, fractions and seed give the same split. With a keyed
    hash, a group's part depends only on its name, the fractions and the seed.

    Args:
        dataset: a data set with groups, and with labels to stratify by if it has them.
        config: the rule, the fractions, and the seed if set there.
        seed: determines the split if the config does not.

    Raises:
        InputError: there are too few groups for three parts, or they have no names to hash.
    """
    chosen = seed if config.split_seed is None else config.split_seed
    official = dataset.official_split
    if official is None:
        everything = np.arange(len(dataset))
        empty = everything[:0]
        official = Split(train=everything, validation=empty, test=empty)
    train, validation, test = np.sort(official.train), np.sort(official.validation), np.sort(official.test)
    if config.split_by == "keyed-hash":
        if len(test) == 0:
            train, test = _hashed(dataset, train, config.test_fraction, seed=chosen, part="test")
        if len(validation) == 0:
            train, validation = _hashed(dataset, train, config.validation_fraction, seed=chosen, part="validation")
        return Split(train=train, validation=validation, test=test)
    generator = np.random.default_rng([_STREAM, chosen])
    if len(test) == 0:
        train, test = _cut(dataset, train, config.test_fraction, generator)
    if len(validation) == 0:
        train, validation = _cut(dataset, train, config.validation_fraction, generator)
    return Split(train=train, validation=validation, test=test)


def split_note(dataset: Dataset, config: DataTable) -> str | None:
    """What the ledger says about how the training set was chosen; None if there is nothing to say."""
    official = dataset.official_split
    if official is not None and len(official.validation) and len(official.test):
        return None
    if config.split_by == "keyed-hash":
        return None
    return (
        "ε holds conditionally on the split into training, validation and test sets: its rule (stratified by class) "
        "could also reassign other records if one were added or removed, and ε does not cover that."
    )


def _hashed(
    dataset: Dataset, numbers: Int[np.ndarray, " sample"], fraction: float, *, seed: int, part: str
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " cut"]]:
    """Take out the groups whose keyed hash is below the fraction."""
    where = "data.split_by"
    if names_of(dataset) is None:
        raise InputError(
            f"the units of {dataset.info.name} have no names of their own, only "
            "positions, which are not stable enough to hash",
            where=where,
            remedy='Use split_by = "stratified".',
        )
    key = hashlib.sha256(f"dpmed split {part} {seed}".encode()).digest()
    threshold = int(fraction * 2.0**64)
    chosen: dict[str, bool] = {}

    def is_cut(name: str) -> bool:
        if name not in chosen:
            digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), key=key, digest_size=8).digest()
            chosen[name] = int.from_bytes(digest, "big") < threshold
        return chosen[name]

    cut = np.fromiter((is_cut(dataset.groups[number]) for number in numbers), bool, len(numbers))
    if not cut.any() or cut.all():
        empty = part if not cut.any() else "training"
        raise InputError(
            f"none of {len(chosen)} {dataset.info.unit}s was assigned to the {empty} part by the hash of its name",
            where=where,
            remedy='Use split_by = "stratified", another split_seed, larger fractions, or more data.',
        )
    return numbers[~cut], numbers[cut]


def _cut(
    dataset: Dataset, numbers: Int[np.ndarray, " sample"], fraction: float, generator: np.random.Generator
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " cut"]]:
    """Take out whole groups until about `fraction` of the samples of each class have been taken."""
    groups = _gather([dataset.groups[number] for number in numbers])
    if len(groups) < 2:  # noqa: PLR2004 one for each side
        raise InputError(
            f"{len(groups)} {dataset.info.unit}s cannot be split in two parts",
            where=f"data.name = {dataset.info.name!r}",
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
        # A shortage or excess in one class is balanced by the next, so that the total is right.
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
