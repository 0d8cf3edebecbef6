"""Pictures from files that nobody vouches for: PNG, JPEG and TIFF to pixels of a wanted size.

The size in the header is checked before any pixel is decoded, so that a bomb costs nothing. Every failure is an
`InputError` with the file's name. Pillow decodes and resizes outside Python's lock, so threads run side by side.
"""

import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from dpmed.errors import InputError

# 8192 × 8192: above every radiograph and skin picture, and a few hundred MB at most while decoding.
MAX_PIXELS = 1 << 26
_FORMATS = ("JPEG", "PNG", "TIFF")
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
_ORIENTATION_TAG = 0x0112

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def decode_picture(
    path: Path, *, size: tuple[int, int], channels: Literal[1, 3], window: tuple[float, float] = (0.0, 65535.0)
) -> UInt8[np.ndarray, "height width channel"]:
    """Read one picture, resize it with anti-aliasing and bring it to 8 bits.

    Large JPEGs are decoded at a half, a quarter or an eighth of their size where that is still at least the wanted one:
    the decoder then averages whole blocks in the frequency domain, which is several times as fast.

    Args:
        path: a PNG, JPEG or TIFF file, whatever its ending says.
        size: height and width to bring it to, pixels; the shape is not kept, as in the paper.
        channels: 1 for grey, 3 for red, green, blue.
        window: pictures of more than 8 bits are clipped to this range, which becomes 0 to 255.

    Raises:
        InputError: the file is missing, damaged, truncated, too large or has values that are not finite.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            _check_size(path, image.width, image.height)
            pages = getattr(image, "n_frames", 1)
            if pages > 1:
                raise InputError(f"holds {pages} pages, not one picture", where=str(path))
            return _convert(path, image, size=size, channels=channels, window=window)
    except UnidentifiedImageError as error:
        empty = path.exists() and path.stat().st_size == 0
        problem = "is empty" if empty else "is no PNG, JPEG or TIFF picture"
        raise InputError(problem, where=str(path)) from error
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(path)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"declares over {MAX_PIXELS:,} pixels, which is refused", where=str(path)) from error
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError, struct.error, zlib.error) as error:
        raise InputError(f"cannot be decoded, it is damaged or incomplete ({error})", where=str(path)) from error


def resize_picture(
    pixels: Shaped[np.ndarray, "height width channel"], *, size: tuple[int, int]
) -> Shaped[np.ndarray, "new_height new_width channel"]:
    """Resize uint8 pixels with the same anti-aliased filter as `decode_picture`."""
    if pixels.shape[:2] == size:
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    resized = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    return resized.reshape(*size, pixels.shape[-1])


def window_to_bytes(values: Float[np.ndarray, "*shape"], window: tuple[float, float]) -> UInt8[np.ndarray, "*shape"]:
    """Clip to a window and map it to 0 to 255, rounded."""
    low, high = window
    return np.rint((np.clip(values, low, high) - low) * (255.0 / (high - low))).astype(np.uint8)


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS or width < 1 or height < 1:
        raise InputError(f"declares {width} x {height} pixels; over {MAX_PIXELS:,} are refused", where=str(path))


def _convert(
    path: Path, image: Image.Image, *, size: tuple[int, int], channels: int, window: tuple[float, float]
) -> UInt8[np.ndarray, "height width channel"]:
    mode = "L" if channels == 1 else "RGB"
    if image.mode in _DEEP_MODES:
        return _convert_deep(path, image, size=size, channels=channels, window=window)
    turned: Image.Image = image
    if image.getexif().get(_ORIENTATION_TAG, 1) != 1:
        turned = ImageOps.exif_transpose(image)
    elif image.format == "JPEG":
        image.draft(mode, size[::-1])
    if turned.mode != mode:
        turned = turned.convert(mode)
    if turned.size != size[::-1]:
        turned = turned.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(turned, np.uint8).reshape(*size, channels)


def _convert_deep(
    path: Path, image: Image.Image, *, size: tuple[int, int], channels: int, window: tuple[float, float]
) -> UInt8[np.ndarray, "height width channel"]:
    values = np.asarray(image).astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError("holds values that are not finite", where=str(path))
    # Clipped first: otherwise one bright artefact would bleed over its neighbours.
    clipped = Image.fromarray(np.clip(values, *window).astype(np.float32))
    resized = np.asarray(clipped.resize(size[::-1], Image.Resampling.BILINEAR))
    grey = window_to_bytes(resized, window)[..., None]
    return np.repeat(grey, channels, axis=-1)
