"""Masks of pictures: class numbers stored as grey values, resized without mixing classes."""

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from dpmed.data.decode.pictures import opened, upright
from dpmed.errors import InputError

_FORMATS = ("PNG", "TIFF")
_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")


def read_mask(
    path: Path, *, size: tuple[int, int], classes: int, image: str, sides: tuple[int, ...]
) -> UInt8[np.ndarray, "height width"]:
    """A mask of a picture: each pixel gets the class that holds the largest share of it, the lower one where two tie.

    Args:
        path: a PNG or TIFF file of grey values (or of a palette's numbers): these are the class numbers. As its picture
            it is turned as its header says.
        size: height and width after resizing.
        classes: values are 0 to `classes` - 1, at most 256.
        image: name of the picture that it belongs to,
        sides: height and width of that picture as displayed; the mask must have the same.

    Raises:
        InputError: the file is missing, damaged or too large, has another shape than its image or an unknown value.
    """
    values = opened(path, partial(_values, path)).astype(np.int32)
    if values.shape != sides:
        raise InputError(
            f"has {values.shape[1]} x {values.shape[0]} pixels, but its image {image} has {sides[1]} x {sides[0]}",
            where=str(path),
            remedy="Give the mask on its image's own pixels.",
        )
    found = np.unique(values)
    if found[0] < 0 or found[-1] >= classes:
        wrong = found[0] if found[0] < 0 else found[-1]
        remedy = "Correct the file, or name all values in data.class_names."
        if found.tolist() == [0, 255]:
            remedy = "A mask of 0 and 255 must be stored as 0 and 1."
        raise InputError(
            f"holds the value {wrong}, but the classes are 0 to {classes - 1}", where=str(path), remedy=remedy
        )
    if values.shape == size:
        return values.astype(np.uint8)
    best, share = np.zeros(size, np.uint8), np.full(size, -1.0, np.float32)
    for value in found.tolist():
        plane = Image.fromarray((values == value).astype(np.float32))
        part = np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR))
        better = part > share + np.float32(1e-5)
        best[better], share[better] = value, part[better]
    return best


def _values(path: Path, image: Image.Image) -> Shaped[np.ndarray, "height width"]:
    if image.format not in _FORMATS:
        raise InputError(f"is a {image.format}, not a PNG or TIFF mask", where=str(path))
    if image.mode not in _MODES:
        raise InputError(
            f"is not a mask: it has colours or fractions (mode {image.mode})",
            where=str(path),
            remedy="Store class numbers as grey values.",
        )
    return upright(image)
