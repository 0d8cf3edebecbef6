"""The voxel sizes of samples in the grid that a model sees, by which distances are measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from dpmed.data.base import Dataset
from dpmed.data.decode.files import grid_of, open_volume
from dpmed.data.decode.volume import Grid, orientation_of, resampled_shapes, spacing_of
from dpmed.data.storage.stored import Sources

_VOLUME_AXES = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class VoxelSizes:
    """Sizes of voxels.

    Attributes:
        sizes: size along each axis, for each sample.
        unit: their unit; `pixels` if files do not state it, as for pictures.
    """

    sizes: Float[np.ndarray, "sample axis"]
    unit: Literal["mm", "pixels"]


def voxel_sizes(dataset: Dataset, numbers: Int[np.ndarray, " sample"]) -> VoxelSizes:
    """The voxel sizes of samples after resampling to the data set's own grid.

    They follow from each volume's own affine: one that is stretched to a shape has its own voxel size, and one that is
    resampled to a voxel size differs from it by what rounding to whole voxels leaves.

    Args:
        dataset: the data set.
        numbers: indices of the samples.

    Raises:
        InputError: a volume cannot be read.
    """
    *space, _ = dataset.info.input_shape
    sources: Sequence[Sources] | None = getattr(dataset, "sources", None)
    preprocessing = dataset.info.preprocessing
    if len(space) != _VOLUME_AXES or sources is None or preprocessing is None:
        return VoxelSizes(sizes=np.ones((len(numbers), len(space))), unit="pixels")
    # The first file of a sample is its image, or one of its channels, which share the same voxels.
    sizes = [_resampled(sources[number], grid_of(preprocessing)) for number in numbers.tolist()]
    return VoxelSizes(sizes=np.array(sizes).reshape(-1, _VOLUME_AXES), unit="mm")


def _resampled(files: Sources, grid: Grid) -> list[float]:
    volume = open_volume(files[0])
    stored, sides = spacing_of(volume), resampled_shapes(volume, grid)[1]
    found = [0.0, 0.0, 0.0]
    for axis, (place, _) in enumerate(orientation_of(volume).tolist()):
        found[place] = volume.voxels.shape[axis] * float(stored[axis]) / sides[place]
    return found
