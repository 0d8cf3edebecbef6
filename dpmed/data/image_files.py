"""One sample's input from its files, whatever kind they are: for data sets that say what lies where, not how to read.

A picture is one file with grey values or colours, or several files with grey values, each a channel; a volume is one
file per channel, all on the same voxels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from dpmed.data.decode.dicom import DICOM_ENDINGS, read_dicom
from dpmed.data.decode.nifti import NIFTI_ENDINGS, Volume, read_nifti
from dpmed.data.decode.pictures import PICTURE_ENDINGS, decode_picture, resize_picture, window_to_bytes
from dpmed.data.decode.volume import Grid, check_pair, read_intensities
from dpmed.errors import InputError

HU_WINDOW, DEEP_WINDOW = (-1024.0, 3071.0), (0.0, 65535.0)
FILE_ENDINGS = PICTURE_ENDINGS + DICOM_ENDINGS + NIFTI_ENDINGS
_VOLUME = 3  # sides
_HALF_EXACT = 4096.0  # float16 is exact to 2 HU up to here


@dataclass(frozen=True, kw_only=True)
class ImageReader:
    """How files become the input of a sample.

    Attributes:
        size: height and width of pictures, or three sides of volumes.
        colours: channels of a picture that is one file: 1 or 3.
        files: per sample.
        window: that values of more than 8 bits and of volumes are clipped to; None for the file kind's own.
    """

    size: tuple[int, ...]
    colours: int
    files: int
    window: tuple[float, float] | None

    @property
    def is_volume(self) -> bool:
        """Whether samples are volumes."""
        return len(self.size) == _VOLUME

    @property
    def channels(self) -> int:
        """Of the input."""
        return self.files if self.is_volume or self.files > 1 else self.colours

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`(*space, channel)`."""
        return (*self.size, self.channels)

    @property
    def value_range(self) -> tuple[float, float]:
        """The lowest and highest stored value there can be."""
        return (self.window or HU_WINDOW) if self.is_volume else (0.0, 255.0)

    @property
    def scale(self) -> float:
        """What stored values are divided by first."""
        return 1.0 if self.is_volume else 255.0

    @property
    def constants(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std per channel that owe nothing to data: the middle and a quarter of the range."""
        low, high = (value / self.scale for value in self.value_range)
        return ((low + high) / 2,) * self.channels, ((high - low) / 4,) * self.channels

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What decoded samples depend on besides the files: a part of the cache's key."""
        return {"size": list(self.size), "channels": self.channels, "window": self.window and list(self.window)}

    def problem_with(self, name: str) -> str | None:
        """What speaks against a file by its name alone, before it is opened."""
        is_nifti = name.lower().endswith(NIFTI_ENDINGS)
        if self.is_volume and not is_nifti:
            return "is no volume (.nii or .nii.gz), but data.size has three sides"
        if not self.is_volume and is_nifti:
            return "is a volume, but data.size has two sides"
        return None

    def read(self, paths: Sequence[Path]) -> Shaped[np.ndarray, "*space channel"]:
        """The input of one sample.

        Raises:
            InputError: a file is missing, damaged or of another kind, or volumes lie on different voxels.
        """
        if self.is_volume:
            return self.read_volumes([read_nifti(path) for path in paths])
        parts = [self._picture(path) for path in paths]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def read_volumes(self, volumes: Sequence[Volume]) -> Shaped[np.ndarray, "x y z channel"]:
        """As `read`, of volumes that are open."""
        window = self.window or HU_WINDOW
        for volume in volumes[1:]:
            check_pair(volumes[0], volume)
        parts = [read_intensities(volume, self.grid, window=window) for volume in volumes]
        for volume, part in zip(volumes, parts, strict=True):
            if part.shape[-1] != 1:
                raise InputError(f"has {part.shape[-1]} channels; volumes must have one", where=str(volume.path))
        dtype = np.float32 if max(map(abs, window)) > _HALF_EXACT else np.float16
        return np.concatenate(parts, axis=-1).astype(dtype)

    @property
    def grid(self) -> Grid:
        """What volumes are resampled to."""
        return Grid(shape=(self.size[0], self.size[1], self.size[2]))

    def _picture(self, path: Path) -> Shaped[np.ndarray, "height width channel"]:
        size = (self.size[0], self.size[1])
        colours = self.colours if self.files == 1 else 1
        if path.name.lower().endswith(DICOM_ENDINGS):
            grey = window_to_bytes(read_dicom(path), self.window or HU_WINDOW)[..., None]
            return np.repeat(resize_picture(grey, size=size), colours, axis=-1)
        return decode_picture(path, size=size, channels=3 if colours > 1 else 1, window=self.window or DEEP_WINDOW)
