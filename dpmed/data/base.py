"""The interface of every data set, whatever its files look like.

A data set is random access: `len(dataset)`, `dataset[i]`. Samples come as they are stored (uint8 pixels stay uint8),
channels last; scaling and normalisation happen on the device, inside the jitted step, from the constants in `Info`.
Constants must be public or be declared by a sentence in `outside_accounting`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Shaped

from dpmed.config.privacy import Unit
from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.errors import InputError

TaskName = Literal["classification", "multi-label", "segmentation", "regression", "reconstruction"]
# Every name under which an image is known, whatever is learnt from it.
ImageNames = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample.

    Attributes:
        input: `(*space, channel)`, uint8, uint16, int16, float16 or float32; as stored, not normalised.
        target: a class number `()` int32 for classification; `(label,)` int8 of 0, 1 or -1 (unknown) for multi-label; a
            mask `(*space)` of class numbers, int32 or uint8, for segmentation; `(target,)` float32 in the targets' own
            units, NaN for unknown, for regression; an image `(*space, channel)` for reconstruction.
    """

    input: Shaped[np.ndarray, "*space channel"]
    target: Shaped[np.ndarray, "..."]


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """From stored values to those that a model sees, (v / scale - mean) / std, and back; the only place for this.

    Attributes:
        scale: stored values are divided by this.
        mean: subtracted then, per channel.
        std: divides then, per channel.
    """

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, stored: Any) -> Any:
        """Normalised values of `stored (*shape, channel)`, a NumPy or JAX array; its floating-point type is kept."""
        factor, shift = self._line(stored)
        return stored * factor - shift

    def undo(self, normalised: Any) -> Any:
        """The inverse of `apply`, up to rounding."""
        factor, shift = self._line(normalised)
        return (normalised + shift) / factor

    def _line(self, values: Any) -> tuple[np.ndarray, np.ndarray]:
        shape = (1,) * (values.ndim - 1) + (-1,)
        factor = np.asarray([1.0 / (self.scale * std) for std in self.std], values.dtype)
        shift = (np.asarray(self.mean, values.dtype) * self.scale * factor).astype(values.dtype)
        return factor.reshape(shape), shift.reshape(shape)


@dataclass(frozen=True, kw_only=True)
class Info:
    """What a model and a plan need to know about a data set without reading a sample.

    Attributes:
        name: as in the config, such as `digits`.
        task: what is to be learnt.
        input_shape: `(*space, channel)`, the same for every sample.
        class_names: name of each class number, or of each label of multi-label; otherwise empty.
        scale: stored values are divided by this first (255 for uint8 pixels).
        mean: subtracted then, per channel.
        std: divides then, per channel.
        unit: what a group of samples is: the coarsest unit known to the data set.
        outside_accounting: every constant above that was computed from private data, one sentence each.
        target_names: name of each regression target, otherwise empty.
        target_mean: public constants subtracted from the regression targets, one each.
        target_std: public constants by which they are then divided, one each.
        patients_unknown: whether samples may share a patient without this being known.
        value_range: the lowest and highest possible stored value if known, such as a CT window.
        preprocessing: how other files are decoded like the samples, if possible.
    """

    name: str
    task: TaskName
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    unit: Unit
    outside_accounting: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None
    preprocessing: Preprocessing | None = None
    target_names: tuple[str, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()
    patients_unknown: bool = False

    @property
    def in_public(self) -> str:
        """The data set as ledgers name it, by nothing that depends on a sample."""
        return f"{self.name}: {self.task}, {'x'.join(map(str, self.input_shape))}"

    @property
    def scaling(self) -> Scaling:
        """From stored values to those that a model sees."""
        return Scaling(scale=self.scale, mean=self.mean, std=self.std)

    @property
    def target_scaling(self) -> Scaling | None:
        """From regression targets to the values that a model predicts; None for other tasks."""
        if self.task != "regression":
            return None
        return Scaling(scale=1.0, mean=self.target_mean, std=self.target_std)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the classes, labels or targets; empty for reconstruction."""
        return self.target_names if self.task == "regression" else self.class_names

    def outputs(self, loss: str) -> int:
        """The number of values that a network predicts, for each pixel if it predicts masks or images.

        Args:
            loss: name of the loss; for binary cross-entropy, two classes have one logit.
        """
        if self.task == "classification" and loss == "binary_cross_entropy":
            return 1
        return len(self.output_names) or self.input_shape[-1]


@dataclass(frozen=True, kw_only=True)
class Split:
    """The samples for training, validation and testing: three disjoint sets of sorted sample numbers."""

    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]
    test: Int[np.ndarray, " test"]

    def parts(self) -> dict[str, Int[np.ndarray, " sample"]]:
        """The three sets by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def select(self, numbers: Int[np.ndarray, " kept"]) -> "Split":
        """The split of some of the samples, renumbered by their position in `numbers`, which must be increasing."""
        kept = {name: np.flatnonzero(np.isin(numbers, part)) for name, part in self.parts().items()}
        return Split(**kept)

    def to_json(self) -> dict[str, list[int]]:
        """The split as JSON types, for the run folder."""
        return {name: part.tolist() for name, part in self.parts().items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, where: str = "") -> "Split":
        """The split that `to_json` wrote.

        Args:
            content: the parsed JSON.
            where: the file, for the message.

        Raises:
            InputError: it is not three disjoint lists of increasing sample numbers.
        """
        names = ("train", "validation", "test")
        try:
            parts = {name: np.asarray(content[name], np.int64).reshape(-1) for name in names}
            whole = all(isinstance(number, int) for name in names for number in content[name])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError("is not a split into train, validation and test", where=where) from error
        rising = all((np.diff(part) > 0).all() and (part[:1] >= 0).all() for part in parts.values())
        total = np.concatenate(list(parts.values()))
        if not (whole and rising and len(np.unique(total)) == len(total)):
            raise InputError("is not three disjoint lists of increasing sample numbers", where=where)
        return cls(**parts)


@runtime_checkable
class Dataset(Protocol):
    """Random access to samples; safe to read from several threads."""

    @property
    def info(self) -> Info:
        """What is known without reading a sample."""
        ...

    @property
    def labels(self) -> Int[np.ndarray, " sample"] | None:
        """Class number of every sample, for stratified splits and counts; None if samples have no single class."""
        ...

    @property
    def groups(self) -> Sequence[str]:
        """The unit (patient, lesion, scan) that each sample belongs to."""
        ...

    @property
    def official_split(self) -> Split | None:
        """The split prescribed by the source, if any."""
        ...

    def columns(self) -> dict[str, Sequence[str]]:
        """Other facts per sample (`sex`, `age`, `site`, …) by which metrics can be broken down; may be empty."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def require_column(known: Collection[str], column: str, *, where: str) -> None:
    """Refuse to break metrics down by a column that a data set does not have.

    Args:
        known: the names of its columns.
        column: the one that was asked for.
        where: the option or the key that asked for it.

    Raises:
        InputError: there is no such column; the message lists those that there are.
    """
    if column not in known:
        remedy = "It has none; data.columns names those of a table."
        if known:
            remedy = f"Its columns are {', '.join(sorted(known))}."
        raise InputError(f"the data set has no column {column!r}", where=where, remedy=remedy)


class Derived:
    """A data set whose samples are derived one by one from another's, which provides everything else.

    Attributes:
        dataset: the other data set.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @property
    def info(self) -> Info:
        """That of the other data set."""
        return self.dataset.info

    @property
    def labels(self) -> Int[np.ndarray, " sample"] | None:
        """Those of the other data set."""
        return self.dataset.labels

    @property
    def groups(self) -> Sequence[str]:
        """Those of the other data set."""
        return self.dataset.groups

    @property
    def names(self) -> Sequence[str] | None:
        """The samples' own names, if the other has any."""
        found: Sequence[str] | None = getattr(self.dataset, "names", None)
        return found

    @property
    def image_names(self) -> Sequence[ImageNames] | None:
        """Names of each sample's image, if the other has any."""
        found: Sequence[ImageNames] | None = getattr(self.dataset, "image_names", None)
        return found

    @property
    def image_files(self) -> Sequence[Sequence[Path]] | None:
        """The files of each sample's image, if it has any of its own."""
        found: Sequence[Sequence[Path]] | None = getattr(self.dataset, "image_files", None)
        return found

    @property
    def official_split(self) -> Split | None:
        """That of the other data set."""
        return self.dataset.official_split

    def columns(self) -> dict[str, Sequence[str]]:
        """Those of the other data set."""
        return self.dataset.columns()

    def __len__(self) -> int:
        return len(self.dataset)
