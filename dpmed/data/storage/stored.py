"""The two forms in which samples are stored: arrays in memory, or files that are decoded on demand.

A data set's own module only determines which samples there are and how a file becomes a sample; everything common to
all data sets is here.
"""

import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
from jaxtyping import Int, Shaped

from dpmed.data.base import ImageNames, Info, Sample, Split

Sources = tuple[Path, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """What is known about every sample before any is read.

    Attributes:
        labels: class number of every sample; None where samples have no single class.
        groups: the unit that each sample belongs to.
        official_split: the split that the source prescribes, if it does.
        columns: other facts per sample.
        targets: labels or numbers, if they are known without reading a file but are not a single class; else None.
        images: names of each sample's image, without what is learnt from it; None if the sample's own name is that.
    """

    labels: Int[np.ndarray, " sample"] | None
    groups: Sequence[str]
    official_split: Split | None = None
    targets: Shaped[np.ndarray, "sample target"] | None = None
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    images: Sequence[ImageNames] | None = None

    @property
    def known_targets(self) -> Shaped[np.ndarray, "sample ..."] | None:
        """The target of every sample if no file has to be read for it; else None."""
        return self.labels if self.targets is None else self.targets

    def select(self, numbers: Int[np.ndarray, " kept"]) -> "Listing":
        """The listing of some of the samples, renumbered in the order of `numbers`, which must be increasing."""
        split = self.official_split
        return Listing(
            labels=None if self.labels is None else self.labels[numbers],
            groups=[self.groups[number] for number in numbers],
            official_split=None if split is None else split.select(numbers),
            columns={name: [column[number] for number in numbers] for name, column in self.columns.items()},
            targets=None if self.targets is None else self.targets[numbers],
            images=None if self.images is None else [self.images[number] for number in numbers],
        )


class Listed:
    """Answers from the listing, common to both kinds of data set."""

    def __init__(self, info: Info, listing: Listing) -> None:
        self._info = info
        self._listing = listing

    @property
    def listing(self) -> Listing:
        """What is known about every sample."""
        return self._listing

    @property
    def info(self) -> Info:
        """What is known without reading a sample."""
        return self._info

    @property
    def labels(self) -> Int[np.ndarray, " sample"] | None:
        """Class number of every sample, or None."""
        return self._listing.labels

    @property
    def groups(self) -> Sequence[str]:
        """The unit that each sample belongs to."""
        return self._listing.groups

    @property
    def official_split(self) -> Split | None:
        """The split prescribed by the source, if any."""
        return self._listing.official_split

    @property
    def image_names(self) -> Sequence[ImageNames] | None:
        """Names of each sample's image, without what is learnt from it; None if the sample's own name is that."""
        return self._listing.images

    def columns(self) -> dict[str, Sequence[str]]:
        """Other facts per sample."""
        return dict(self._listing.columns)


class ArrayDataset(Listed):
    """Samples that are in memory, or in a memory-mapped file.

    Args:
        info: constants of the data set.
        listing: listing of its samples.
        inputs: inputs as stored, one row per sample.
        targets: one row per sample.
    """

    def __init__(
        self,
        info: Info,
        listing: Listing,
        *,
        inputs: Shaped[np.ndarray, "sample *space channel"],
        targets: Shaped[np.ndarray, "sample ..."],
    ) -> None:
        if not len(inputs) == len(targets) == len(listing.groups):
            raise ValueError(f"Expected as many {len(inputs)=} as {len(targets)=} and {len(listing.groups)=}.")
        super().__init__(info, listing)
        self.inputs = inputs
        self.targets = targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Sample:
        return Sample(input=self.inputs[index], target=np.asarray(self.targets[index]))

    def gather(
        self, numbers: Int[np.ndarray, " sample"]
    ) -> tuple[Shaped[np.ndarray, "sample *space channel"], Shaped[np.ndarray, "sample ..."]]:
        """Copies of several samples at once."""
        return np.take(self.inputs, numbers, axis=0), np.take(self.targets, numbers, axis=0)

    def select(self, numbers: Int[np.ndarray, " kept"]) -> "ArrayDataset":
        """Some samples, numbered anew; `numbers` must rise."""
        return ArrayDataset(
            self._info,
            self._listing.select(numbers),
            inputs=self.inputs[numbers],
            targets=self.targets[numbers],
        )


class _Names(Sequence[str]):
    """Names made when one asks for them: of a million samples, most are never asked for, or one after the other."""

    def __init__(self, root: Path, sources: Sequence[Sources]) -> None:
        self._root = root
        self._prefix = os.path.join(root, "")
        self._sources = sources

    def __len__(self) -> int:
        return len(self._sources)

    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> "_Names": ...

    def __getitem__(self, index: SupportsIndex | slice) -> "str | _Names":
        if isinstance(index, slice):
            return _Names(self._root, self._sources[index])
        return "\n".join(map(self.below, self._sources[operator.index(index)]))

    def below(self, path: Path) -> str:
        """As `os.path.relpath` says it, three times as fast: paths have no superfluous parts."""
        text = str(path)
        if text.startswith(self._prefix) and ".." not in text:
            return text[len(self._prefix) :]
        return os.path.relpath(path, self._root)


def files_below(root: Path, sources: Sequence[Sources]) -> list[ImageNames]:
    """The files of each sample, as paths below the root."""
    names = _Names(root, sources)
    return [tuple(map(names.below, files)) for files in sources]


class FromFiles(Listed):
    """What files tell, whether samples are decoded from them each time or have been before.

    Attributes:
        sources: the files of each sample, such as image and label map.
    """

    sources: Sequence[Sources]

    @property
    def image_files(self) -> Sequence[Sources]:
        """The files of each sample's image; a label map, which comes last, is none of them."""
        return [files[:-1] for files in self.sources] if self._info.task == "segmentation" else self.sources


class FileDataset(FromFiles):
    """Samples that are decoded from files each time they are requested.

    Args:
        info: constants of the data set.
        listing: listing of its samples.
        root: the folder that contains all files.
        sources: the files of each sample, such as image and label map.
        decode: makes a sample from its files and its number; safe to call from several threads.
        preprocessing: everything except the files that the samples depend on, as JSON types; part of the cache's key.
    """

    def __init__(
        self,
        info: Info,
        listing: Listing,
        *,
        root: Path,
        sources: Sequence[Sources],
        decode: Callable[[Sources, int], Sample],
        preprocessing: Mapping[str, Any],
    ) -> None:
        if len(sources) != len(listing.groups):
            raise ValueError(f"Expected as many {len(sources)=} as {len(listing.groups)=}.")
        super().__init__(info, listing)
        self.root = root
        self.sources = sources
        self.preprocessing = preprocessing
        self._decode = decode

    @property
    def names(self) -> Sequence[str]:
        """The files of each sample below the root, which identify it whatever other samples there are."""
        return _Names(self.root, self.sources)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Sample:
        return self._decode(self.sources[index], index)

    def select(self, numbers: Int[np.ndarray, " kept"]) -> "FileDataset":
        """Some samples, numbered anew; `numbers` must rise."""
        return FileDataset(
            self._info,
            self._listing.select(numbers),
            root=self.root,
            sources=[self.sources[number] for number in numbers],
            decode=lambda files, number: self._decode(files, int(numbers[number])),
            preprocessing=self.preprocessing,
        )
