"""From the numbers of sampled records to padded microbatches.

A record is what the sampler draws and what is clipped as a whole: one image, or all images of a patient, lesion or
scan when that is the unit of privacy. Inside a record the images stand along the `view` axis; a record with fewer
images than the largest one is padded with views of weight zero.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from dpmed.data.base import Dataset


@dataclass(frozen=True, kw_only=True)
class Records:
    """A microbatch of fixed shape.

    Attributes:
        inputs: as stored; padding is zero.
        targets: as stored; padding is zero.
        weights: one over the number of real views of the record; 0 for a padded view. A record's loss is the weighted
            sum over its views, hence their mean.
        mask: true for a real record, false for padding.
        numbers: the record's number in the sampler's counting; -1 for padding.
    """

    inputs: Shaped[np.ndarray, "record view *space channel"]
    targets: Shaped[np.ndarray, "record view ..."]
    weights: Float[np.ndarray, "record view"]
    mask: Bool[np.ndarray, " record"]
    numbers: Int[np.ndarray, " record"]


class Loader:
    """Loads records in microbatches of one shape.

    Args:
        dataset: where samples come from.
        members: for each record number the numbers of its samples in `dataset`, none of them empty.
        microbatch: records per microbatch, at least 1.
    """

    def __init__(self, dataset: Dataset, members: list[Int[np.ndarray, " sample"]], *, microbatch: int) -> None:
        if microbatch < 1:
            raise ValueError(f"Expected {microbatch=} >= 1.")
        self.dataset = dataset
        self.members = members
        self.microbatch = microbatch
        self.views = max((len(samples) for samples in members), default=1)

    def stream(self, steps: Iterable[Int[np.ndarray, " record"]]) -> Iterator[Iterator[Records]]:
        """For each step's record numbers its microbatches, in order; an empty step has none."""
        for numbers in steps:
            yield self.load(numbers)

    def load(self, numbers: Int[np.ndarray, " record"]) -> Iterator[Records]:
        """The microbatches of one step: every record once, the last microbatch padded."""
        for start in range(0, len(numbers), self.microbatch):
            yield self._collect(numbers[start : start + self.microbatch])

    def _collect(self, numbers: Int[np.ndarray, " record"]) -> Records:
        first = self.dataset[int(self.members[int(numbers[0])][0])]
        shape = (self.microbatch, self.views)
        inputs = np.zeros((*shape, *first.input.shape), first.input.dtype)
        targets = np.zeros((*shape, *first.target.shape), first.target.dtype)
        weights = np.zeros(shape, np.float32)
        for row, number in enumerate(numbers):
            samples = self.members[int(number)]
            weights[row, : len(samples)] = 1.0 / len(samples)
            for view, index in enumerate(samples):
                sample = self.dataset[int(index)]
                inputs[row, view], targets[row, view] = sample.input, sample.target
        padded = np.full(self.microbatch, -1, np.int64)
        padded[: len(numbers)] = numbers
        return Records(inputs=inputs, targets=targets, weights=weights, mask=padded >= 0, numbers=padded)
