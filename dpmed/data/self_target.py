"""Any data set as one of reconstruction: the target of an image is the image itself.

With noise in the augmentation, which changes the input only, this is learning to denoise.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int, Shaped

from dpmed.data.base import Dataset, Info, Sample, Split
from dpmed.data.identity import names_of
from dpmed.data.loader import Gathers


class SelfTarget:
    """A data set whose targets are its inputs; labels serve to stratify the split only.

    Args:
        dataset: where images come from.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    @property
    def info(self) -> Info:
        """That of the data set, for the task of reconstruction."""
        return replace(
            self._dataset.info, task="reconstruction", class_names=(), target_names=(), target_mean=(), target_std=()
        )

    @property
    def labels(self) -> Int[np.ndarray, " sample"] | None:
        """Class number of every sample, or None."""
        return self._dataset.labels

    @property
    def groups(self) -> Sequence[str]:
        """The unit that each sample belongs to."""
        return self._dataset.groups

    @property
    def names(self) -> Sequence[str] | None:
        """The samples' own names, if they have any."""
        return names_of(self._dataset)

    @property
    def official_split(self) -> Split | None:
        """The split that the source prescribes, if it does."""
        return self._dataset.official_split

    def columns(self) -> dict[str, Sequence[str]]:
        """Further facts per sample."""
        return self._dataset.columns()

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        image = self._dataset[index].input
        return Sample(input=image, target=image)

    def gather(
        self, numbers: Int[np.ndarray, " sample"]
    ) -> tuple[Shaped[np.ndarray, "sample *space channel"], Shaped[np.ndarray, "sample ..."]]:
        """Copies of several samples."""
        if isinstance(self._dataset, Gathers):
            images, _ = self._dataset.gather(numbers)
        else:
            images = np.stack([self._dataset[int(number)].input for number in numbers])
        return images, images
