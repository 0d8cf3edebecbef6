"""Reads originals and reconstructions from a folder that may come from elsewhere, and scales them to [0, 1].

A file's header is checked against the manifest before pixels are decoded or arrays allocated; nothing is unpickled.
"""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np
from jaxtyping import Float
from PIL import Image

from dpmed.errors import InputError
from dpmed.files import inside

_REMEDY = "The folder is damaged, or was changed after `dpmed reconstruct` wrote it; run that command again."


def read_images(
    folder: Path, paths: Sequence[str], *, shape: tuple[int, ...], value_range: tuple[float, float]
) -> Float[np.ndarray, " n *shape"]:
    """The images of a batch, scaled so that the value range becomes [0, 1]; values outside are clipped.

    Args:
        folder: the folder of the manifest.
        paths: relative to it, `.png` or `.npy`.
        shape: `(*space, channel)` of every image.
        value_range: of `.npy` files; in a PNG, 0 to 255 already stand for it.

    Raises:
        InputError: a file is missing, damaged, of another shape or holds values that are not finite.
    """
    images = np.empty((len(paths), *shape), np.float32)
    for number, name in enumerate(paths):
        path = inside(folder, name)
        if not path.is_file():
            raise InputError("is missing, though the manifest lists it", where=str(path), remedy=_REMEDY)
        if path.suffix == ".png":
            images[number] = _read_png(path, shape)
        else:
            low, high = value_range
            images[number] = np.clip((_read_array(path, shape) - low) / (high - low), 0.0, 1.0)
    return images


def nonzero_ratio(images: Float[np.ndarray, "n *space channel"]) -> Float[np.ndarray, " n"]:
    """The fraction of pixels above the lowest value in any channel: near 0 for an image that is mostly background."""
    return np.asarray((images > 0).any(-1)).reshape(len(images), -1).mean(1)


def _read_png(path: Path, shape: tuple[int, ...]) -> Float[np.ndarray, "height width channel"]:
    mode = "L" if shape[-1] == 1 else "RGB"
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if (image.height, image.width) != shape[:2] or image.mode != mode:
                found = f"{image.height} x {image.width} pixels ({image.mode})"
                raise InputError(
                    f"has {found}, but the manifest says {shape[0]} x {shape[1]} ({mode})",
                    where=str(path),
                    remedy=_REMEDY,
                )
            return np.asarray(image, np.float32).reshape(shape) / np.float32(255)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise InputError(f"cannot be decoded ({error})", where=str(path), remedy=_REMEDY) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError("declares more pixels than are read", where=str(path), remedy=_REMEDY) from error


def _read_array(path: Path, shape: tuple[int, ...]) -> Float[np.ndarray, "*shape"]:
    try:
        # Mapped rather than read, so that the header is checked against the file's size before memory is allocated.
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:
        raise InputError(f"is not a readable .npy file ({error})", where=str(path), remedy=_REMEDY) from error
    if not isinstance(mapped, np.ndarray) or mapped.shape != shape or mapped.dtype.kind not in "fiu":
        found = getattr(mapped, "shape", "an archive")
        raise InputError(f"holds {found}, but the manifest says {shape}", where=str(path), remedy=_REMEDY)
    values = np.asarray(mapped, np.float64)
    if not np.isfinite(values).all():
        raise InputError("holds values that are not finite", where=str(path), remedy=_REMEDY)
    return values
