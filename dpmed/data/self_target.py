"""Turns any data set into one for reconstruction: the target of an image is the image itself.

With noise in the augmentation, which changes the input only, this is learning to denoise.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Int, Shaped

from dpmed.data.base import Derived, Info, Sample
from dpmed.data.loader import Gathers


class SelfTarget(Derived):
    """A data set whose targets are its inputs; labels only serve to stratify the split.

    Args:
        dataset: where images come from.
    """

    @property
    def info(self) -> Info:
        """That of the data set, for the task of reconstruction."""
        return replace(
            self.dataset.info, task="reconstruction", class_names=(), target_names=(), target_mean=(), target_std=()
        )

    def __getitem__(self, index: int) -> Sample:
        image = self.dataset[index].input
        return Sample(input=image, target=image)

    def gather(
        self, numbers: Int[np.ndarray, " sample"]
    ) -> tuple[Shaped[np.ndarray, "sample *space channel"], Shaped[np.ndarray, "sample ..."]]:
        """Copies of several samples."""
        if isinstance(self.dataset, Gathers):
            images, _ = self.dataset.gather(numbers)
        else:
            images = np.stack([self.dataset[int(number)].input for number in numbers])
        return images, images
