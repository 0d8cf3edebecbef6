"""Originals and recovered images on disk: converts between normalised arrays and the files listed in a manifest."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from PIL import Image

from dpmed.data.base import Dataset, Info, Split
from dpmed.files import make_folder, write_atomically, write_bytes
from dpmed.tensors import write_array

_LOOKED_AT = 32
_PNG_AXES = 3
_PNG_CHANNELS = (1, 3)

Images = Float[np.ndarray, "image *space channel"]


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """How a data set's images are written.

    Attributes:
        info: the data set's constants.
        value_range: lowest and highest stored value.
    """

    info: Info
    value_range: tuple[float, float]

    @property
    def stored(self) -> Literal["png", "npy"]:
        """PNG for pictures, arrays for volumes and for unusual numbers of channels."""
        shape = self.info.input_shape
        return "png" if len(shape) == _PNG_AXES and shape[-1] in _PNG_CHANNELS else "npy"

    def limits(self) -> tuple[Float[np.ndarray, " channel"], Float[np.ndarray, " channel"]]:
        """The value range of normalised images, per channel."""
        channels = self.info.input_shape[-1]
        low, high = (self.info.scaling.apply(np.full(channels, value, np.float64)) for value in self.value_range)
        return low.astype(np.float32), high.astype(np.float32)

    def denormalise(self, images: Images) -> Images:
        """The stored values of normalised images, clipped to the value range."""
        stored = self.info.scaling.undo(images.astype(np.float64))
        return np.clip(stored, *self.value_range).astype(np.float32)

    def write(self, root: Path, names: Sequence[str], images: Images) -> None:
        """Write stored images, each whole or not at all, in folders that only their owner can read.

        Args:
            root: the folder of the manifest.
            names: paths relative to it, as in the manifest.
            images: with stored values.
        """
        for name, image in zip(names, images, strict=True):
            path = root / name
            make_folder(path.parent)
            if self.stored == "png":
                write_bytes(path, self._png(image))
            else:
                write_atomically(path, partial(write_array, array=image.astype(np.float32)))

    def _png(self, image: Float[np.ndarray, "height width channel"]) -> bytes:
        low, high = self.value_range
        pixels = np.rint(255 * np.clip((image - low) / (high - low), 0, 1)).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, format="PNG")
        return buffer.getvalue()


def image_files(dataset: Dataset, split: Split) -> ImageFiles:
    """How to write the images of a data set.

    Pixels have a natural range, and windowed scans that of their window. For other intensities, the range is that of
    some samples outside the training set, so that nothing is learnt from the attacked images.
    """
    info = dataset.info
    if info.value_range is not None:
        return ImageFiles(info=info, value_range=info.value_range)
    if info.scale != 1.0:
        return ImageFiles(info=info, value_range=(0.0, float(info.scale)))
    outside = np.concatenate([split.validation, split.test])[:_LOOKED_AT]
    values = [np.asarray(dataset[int(number)].input, np.float64) for number in outside]
    low, high = min(float(value.min()) for value in values), max(float(value.max()) for value in values)
    return ImageFiles(info=info, value_range=(low, high if high > low else low + 1.0))
