"""A data set from the user's own code, made by a factory and checked before and during use.

What the code does with patients' data before it returns a sample cannot be checked here: the user vouches that a sample
depends on nothing but its own record and that constants are independent of private data, and the ledger says so.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Int

from dpmed.config.data import CustomData
from dpmed.data.base import Dataset, Info, Sample, Split
from dpmed.data.identity import names_of
from dpmed.errors import InputError
from dpmed.factories import Loaded, guarded, load_factory

_WHERE = "data.factory"
_INPUT_TYPES = ("uint8", "int16", "uint16", "float16", "float32")
_TARGET_KINDS = {"classification": "iu", "multi-label": "iu", "segmentation": "iu", "regression": "f"}


def read_custom(config: CustomData) -> "CheckedDataset":
    """The factory's result, checked against the protocol of data sets.

    Raises:
        InputError: there is no such factory, it raised, or its result is not a data set; the message says why.
    """
    folders = [Path(value) for value in config.arguments.values() if isinstance(value, str) and Path(value).is_dir()]
    loaded = load_factory(config.factory, where=_WHERE, not_below=folders)
    made = loaded.call(**config.arguments)
    return CheckedDataset(made, loaded)


def outside_sentence(loaded: Loaded) -> str:
    """What the ledger says about data from the user's own code."""
    return (
        f"The data come from custom code, {loaded.describe()}. ε holds if each sample depends on nothing but its own "
        "record. What this code says is unchecked: constants, such as mean, std and the names of classes, and which "
        "samples share a patient."
    )


class CheckedDataset:
    """A user's data set, every answer of which is checked.

    Args:
        made: the result of the factory.
        loaded: the factory, for messages and the ledger.

    Raises:
        InputError: it is not a data set.
    """

    def __init__(self, made: Any, loaded: Loaded) -> None:
        self._loaded = loaded
        self._where = f"{_WHERE} = {loaded.name!r}"
        self._made: Dataset = made
        guarded(self._check, where=self._where)

    def _check(self) -> None:
        made = self._made
        if not isinstance(made, Dataset):
            lacks = [name for name in _MEMBERS if not hasattr(made, name)]
            self._refuse(f"gave a {type(made).__name__}, which is no data set: it lacks {', '.join(lacks)}")
        if not isinstance(made.info, Info):
            self._refuse(f"gave a data set whose info is a {type(made.info).__name__}, not a dpmed.Info")
        _check_info(made.info, self._refuse)
        size = len(made)
        if size < 3:  # noqa: PLR2004 one for each part
            self._refuse(f"gave a data set of {size} samples; three are needed at least")
        self._groups = [*made.groups]
        if len(self._groups) != size or not all(isinstance(group, str) and group for group in self._groups):
            self._refuse(f"gave {len(self._groups)} groups for {size} samples, or some that are not text")
        self._labels = self._check_labels(made.labels, size)
        self._split = self._check_split(made.official_split, size)
        self._columns = {name: [str(value) for value in column] for name, column in made.columns().items()}
        for name, column in self._columns.items():
            if len(column) != size:
                self._refuse(f"gave {len(column)} values in the column {name!r} for {size} samples")
        self._info = self._with_notes(made.info)
        self._dtypes = self._look_at(0)

    def _with_notes(self, info: Info) -> Info:
        from dataclasses import replace

        return replace(
            info, name="custom", outside_accounting=(*info.outside_accounting, outside_sentence(self._loaded))
        )

    def _check_labels(self, labels: Any, size: int) -> Int[np.ndarray, " sample"] | None:
        info = self._made.info
        if labels is None:
            if info.task == "classification":
                self._refuse("gave a data set for classification without labels")
            return None
        array = np.asarray(labels)
        classes = len(info.class_names)
        if array.shape != (size,) or array.dtype.kind not in "iu":
            self._refuse(f"gave labels of shape {array.shape} and type {array.dtype}, not {size} whole numbers")
        if info.task == "classification" and (array.min() < 0 or array.max() >= classes):
            self._refuse(f"gave labels from {array.min()} to {array.max()}, but the classes are 0 to {classes - 1}")
        return array.astype(np.int32)

    def _check_split(self, split: Any, size: int) -> Split | None:
        if split is None:
            return None
        if not isinstance(split, Split):
            self._refuse(f"gave an official_split that is a {type(split).__name__}, not a dpmed.Split")
        checked = Split.from_json(split.to_json(), where=self._where)
        highest = max((int(part[-1]) for part in checked.parts().values() if len(part)), default=-1)
        if highest >= size or len(checked.train) == 0:
            self._refuse(f"gave an official_split up to sample {highest} of {size}, or without training samples")
        part_of: dict[str, str] = {}
        for part, numbers in checked.parts().items():
            for number in numbers.tolist():
                if part_of.setdefault(self._groups[number], part) != part:
                    self._refuse(f"gave an official_split with the unit {self._groups[number]!r} in two parts")
        return checked

    def _look_at(self, index: int) -> tuple[np.dtype, np.dtype]:
        sample = self._made[index]
        if not isinstance(sample, Sample):
            self._refuse(f"gave a {type(sample).__name__} as sample {index}, not a dpmed.Sample")
        if np.asarray(sample.input).dtype.name not in _INPUT_TYPES:
            self._refuse(
                f"gave sample {index} as {np.asarray(sample.input).dtype}, which is none of {', '.join(_INPUT_TYPES)}"
            )
        return np.asarray(sample.input).dtype, np.asarray(sample.target).dtype

    def _refuse(self, problem: str) -> NoReturn:
        raise InputError(problem, where=self._where)

    @property
    def info(self) -> Info:
        """The constants from the code, with the ledger's sentence about the code."""
        return self._info

    @property
    def labels(self) -> Int[np.ndarray, " sample"] | None:
        """Class number of every sample, or None."""
        return self._labels

    @property
    def groups(self) -> Sequence[str]:
        """The unit that each sample belongs to."""
        return self._groups

    @property
    def names(self) -> Sequence[str] | None:
        """The samples' own names, if the code gives them."""
        return names_of(self._made)

    @property
    def official_split(self) -> Split | None:
        """The split that the code prescribes, if it does."""
        return self._split

    def columns(self) -> dict[str, Sequence[str]]:
        """Other facts per sample, as text."""
        return dict(self._columns)

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: int) -> Sample:
        sample: Sample = guarded(lambda: self._made[index], where=f"{self._where}, sample {index}")
        values, target = np.asarray(sample.input), np.asarray(sample.target)
        info = self._info
        if values.shape != info.input_shape or (values.dtype, target.dtype) != self._dtypes:
            self._refuse(
                f"gave sample {index} as {values.dtype} of shape {values.shape} with a target of {target.dtype}; "
                f"info says {info.input_shape}, and sample 0 had {self._dtypes[0]} and {self._dtypes[1]}"
            )
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            self._refuse(f"gave sample {index} with values that are not finite")
        problem = _problem_with_target(target, info, None if self._labels is None else int(self._labels[index]))
        if problem:
            self._refuse(f"gave sample {index} with {problem}")
        return Sample(input=values, target=target)

    def select(self, numbers: Int[np.ndarray, " kept"]) -> "CheckedDataset":
        """Some samples, renumbered; `numbers` must be increasing."""
        return CheckedDataset(_Selected(self._made, numbers), self._loaded)


class _Selected:
    """Some samples of a data set."""

    def __init__(self, dataset: Dataset, numbers: Int[np.ndarray, " kept"]) -> None:
        self._dataset, self._numbers = dataset, numbers
        self.info = dataset.info
        self.labels = None if dataset.labels is None else np.asarray(dataset.labels)[numbers]
        self.groups = [dataset.groups[number] for number in numbers]
        self.official_split = None if dataset.official_split is None else dataset.official_split.select(numbers)
        names = names_of(dataset)
        self.names = None if names is None else [names[number] for number in numbers]

    def columns(self) -> dict[str, Sequence[str]]:
        return {name: [column[number] for number in self._numbers] for name, column in self._dataset.columns().items()}

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[int(self._numbers[index])]


_MEMBERS = ("info", "labels", "groups", "official_split", "columns", "__len__", "__getitem__")


def _check_info(info: Info, refuse: Callable[[str], NoReturn]) -> None:
    channels = info.input_shape[-1] if info.input_shape else 0
    numbers = [info.scale, *info.mean, *info.std, *info.target_mean, *info.target_std]
    if len(info.input_shape) not in (3, 4) or min(info.input_shape) < 1:
        refuse(f"gave input_shape = {info.input_shape}, not (height, width, channel) or (x, y, z, channel)")
    if not len(info.mean) == len(info.std) == channels:
        refuse(f"gave {len(info.mean)} values of mean and {len(info.std)} of std for {channels} channels")
    if not np.isfinite(numbers).all() or min(info.scale, *info.std, *info.target_std) <= 0:
        refuse("gave constants (scale, mean, std) that are not finite, or not above 0 where they divide")
    if info.task == "regression":
        if not len(info.target_names) == len(info.target_mean) == len(info.target_std) > 0:
            refuse("gave target_names, target_mean and target_std of different lengths, or none")
    elif info.task != "reconstruction" and len(info.class_names) < (1 if info.task == "multi-label" else 2):
        refuse(f"gave {len(info.class_names)} class_names for {info.task}")


def _problem_with_target(target: np.ndarray, info: Info, label: int | None) -> str:
    """The problem with a target; empty if there is none."""
    shapes = {
        "classification": (),
        "multi-label": (len(info.class_names),),
        "regression": (len(info.target_names),),
        "segmentation": info.input_shape[:-1],
        "reconstruction": info.input_shape,
    }
    if target.shape != shapes[info.task]:
        return f"a target of shape {target.shape}, not {shapes[info.task]}"
    if info.task in _TARGET_KINDS and target.dtype.kind not in _TARGET_KINDS[info.task]:
        return f"a target of type {target.dtype}"
    if info.task == "classification":
        return "" if int(target) == label else f"the target {int(target)}, but labels say {label}"
    if info.task == "regression":
        return "a target that is infinite" if np.isinf(target).any() else ""
    if info.task == "reconstruction":
        return "" if np.isfinite(target).all() else "a target that is not finite"
    low, high = (-1, 1) if info.task == "multi-label" else (0, len(info.class_names) - 1)
    return "" if target.min() >= low and target.max() <= high else f"target values that are not {low} to {high}"
