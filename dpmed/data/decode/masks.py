"""Masks of pictures: class numbers stored as grey values, resized without mixing classes."""

from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, UnidentifiedImageError

from dpmed.data.decode.pictures import MAX_PIXELS
from dpmed.errors import InputError

_FORMATS = ("PNG", "TIFF")
_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")


def read_mask(
    path: Path, *, size: tuple[int, int], classes: int, image: str, sides: tuple[int, ...]
) -> UInt8[np.ndarray, "height width"]:
    """A mask of a picture: each pixel gets the class that holds the largest share of it, the lower one where two tie.

    Args:
        path: a PNG or TIFF file of grey values (or of a palette's numbers): these are the class numbers.
        size: height and width after resizing.
        classes: values are 0 to `classes` - 1, at most 256.
        image: name of the picture that it belongs to,
        sides: height and width of that picture as displayed; the mask must have the same.

    Raises:
        InputError: the file is missing, damaged or too large, has another shape than its image or an unknown value.
    """
    values = _read_values(path)
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


def _read_values(path: Path) -> Integer[np.ndarray, "height width"]:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS or image.width < 1 or image.height < 1:
                raise InputError(
                    f"declares {image.width} x {image.height} pixels; over {MAX_PIXELS:,} are refused", where=str(path)
                )
            if image.mode not in _MODES:
                raise InputError(
                    f"is not a mask: it has colours or fractions (mode {image.mode})",
                    where=str(path),
                    remedy="Store class numbers as grey values.",
                )
            values = np.asarray(image)
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(path)) from error
    except UnidentifiedImageError as error:
        raise InputError("is not a PNG or TIFF mask", where=str(path)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"declares over {MAX_PIXELS:,} pixels, which is refused", where=str(path)) from error
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError) as error:
        raise InputError(f"cannot be decoded, it is damaged or incomplete ({error})", where=str(path)) from error
    return values.astype(np.int32)
