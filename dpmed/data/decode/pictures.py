"""Decodes untrusted PNG, JPEG and TIFF files to pixels of a given size and depth.

The size in the header is checked before any pixel is decoded, so that decompression bombs cost nothing. Every failure
is an `InputError` with the file's name. Pillow releases Python's global lock while decoding and resizing, so threads
run in parallel.

Rules: colour becomes grey by 0.299 R + 0.587 G + 0.114 B, grey becomes colour by repeating it; palettes are looked up;
transparent pixels are composited over black; the camera's orientation is respected.
"""

import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from dpmed.data.decode.quiet import ignore_warnings
from dpmed.data.decode.window import Depth, Window, deepen, percentile_window, to_depth, to_unit
from dpmed.errors import InputError

# 8192 × 8192: larger than any radiograph or skin picture, and at most a few hundred MB while decoding.
MAX_PIXELS = 1 << 26
_FORMATS = ("JPEG", "PNG", "TIFF")
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
_KNOWN_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA", "RGBX", "RGBa", "La", "CMYK", "YCbCr")
_ORIENTATION_TAG, _ON_THEIR_SIDE = 0x0112, (5, 6, 7, 8)
_PHOTOMETRIC_TAG, _WHITE_IS_ZERO = 0x0106, 0
_EIGHT_BITS, _SIXTEEN_BITS, _MORE_BITS = 8, 16, 32
# The name of the raw pixels tells how much of the stored values Pillow returns; 12 bits are returned unchanged.
_TWELVE_BITS, _SIXTEEN = "12", "16"
_RANGES = {12: (0.0, 4095.0), 16: (0.0, 65535.0)}

# Errors that Pillow raises on damaged files, including MemoryError: some formats allocate what the file declares.
_DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError, MemoryError, OverflowError, IndexError,
    struct.error, zlib.error,
)  # fmt: skip

T = TypeVar("T")


def decode_picture(
    path: Path, *, size: tuple[int, int], channels: Literal[1, 3], window: Window, depth: Depth, narrow: bool
) -> tuple[Shaped[np.ndarray, "height width channel"], tuple[int, int]]:
    """Read one picture, resize it with anti-aliasing and convert it to a depth.

    Large JPEGs are decoded at a half, a quarter or an eighth of their size where that is still at least the wanted one:
    the decoder then averages whole blocks in the frequency domain, which is several times as fast.

    Args:
        path: a PNG, JPEG or TIFF file, whatever its extension.
        size: height and width after resizing, in pixels; the aspect ratio is not preserved, as in the paper.
        channels: 1 for greyscale, 3 for red, green, blue.
        window: grey pictures of more than 8 bits are clipped to this range, which becomes the whole range of the depth;
            None is all that their bits can hold.
        depth: bits per value of the result: uint8 or uint16. Pictures of 8 bits keep their range in both.
        narrow: whether pictures of more than 8 bits may be reduced to 8; otherwise they are refused if `depth` is 8.

    Returns:
        The values, and the height and width of the picture as displayed, in pixels.

    Raises:
        InputError: the file is missing, damaged, truncated, too large or too deep, or has values that are not finite.
    """
    # No function within this one: the annotations of its shapes would be made anew for every picture.
    convert = partial(_convert_any, path, size=size, channels=channels, window=window, depth=depth, narrow=narrow)
    return opened(path, convert)


def picture_bits(path: Path) -> int:
    """Bits per value of a picture, by its header: 8 (or less), 12, 16 or 32.

    Raises:
        InputError: it is missing, too large or not such a picture.
    """
    return opened(path, _bits)


def resize_picture(
    pixels: Shaped[np.ndarray, "height width channel"], *, size: tuple[int, int]
) -> Shaped[np.ndarray, "new_height new_width channel"]:
    """Resize uint8 or float32 pixels with the same anti-aliased filter as `decode_picture`."""
    if pixels.shape[:2] == size:
        return pixels
    if pixels.dtype == np.float32:
        layers = [Image.fromarray(np.ascontiguousarray(pixels[..., layer])) for layer in range(pixels.shape[-1])]
        return np.stack([np.asarray(layer.resize(size[::-1], Image.Resampling.BILINEAR)) for layer in layers], axis=-1)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    resized = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    return resized.reshape(*size, pixels.shape[-1])


def to_channels(unit: Float[np.ndarray, "height width channel"], channels: int) -> Float[np.ndarray, "height width c"]:
    """Values from 0 to 1 with one or three channels, by the rules of this module."""
    if unit.shape[-1] == channels:
        return unit
    if channels == 1:
        return (unit @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    return np.repeat(unit, channels, axis=-1)


def opened(path: Path, action: Callable[[Image.Image], T]) -> T:
    """The result of `action` on the opened picture, whose pixels are not loaded yet.

    Raises:
        InputError: the file is missing, damaged, too large, holds several pages, or is no PNG, JPEG or TIFF picture.
    """
    ignore_warnings(["PIL"])
    try:
        # Opened here because Pillow, given a path, maps some TIFF files into memory, and then rotates those lying on
        # their side incorrectly; and if a mapped file is truncated meanwhile, the process ends.
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            _check_size(path, image.width, image.height)
            pages = getattr(image, "n_frames", 1)
            # Cameras and phones write previews, depth and brightness behind the picture proper (MPO, CIPA DC-007).
            if pages > 1 and image.format != "MPO":
                raise InputError(f"holds {pages} pages, not one picture", where=str(path))
            return action(image)
    except UnidentifiedImageError as error:
        raise InputError(_unidentified(path), where=str(path)) from error
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(path)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"declares over {MAX_PIXELS:,} pixels, which is refused", where=str(path)) from error
    except _DAMAGE as error:
        raise InputError(f"cannot be decoded, it is damaged or incomplete ({error})", where=str(path)) from error


def _unidentified(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        return "is empty"
    return "is a GIF, not one PNG, JPEG or TIFF picture" if start == b"GIF8" else "is not a PNG, JPEG or TIFF picture"


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS or width < 1 or height < 1:
        raise InputError(f"declares {width} x {height} pixels; over {MAX_PIXELS:,} are refused", where=str(path))


def _convert_any(
    path: Path,
    image: Image.Image,
    *,
    size: tuple[int, int],
    channels: int,
    window: Window,
    depth: Depth,
    narrow: bool,
) -> tuple[Shaped[np.ndarray, "height width channel"], tuple[int, int]]:
    bits = _bits(image)  # before loading the pixels, after which this is no longer known
    # Pillow turns TIFF by itself, and gives the size after that.
    turned = image.format != "TIFF" and image.getexif().get(_ORIENTATION_TAG, 1) in _ON_THEIR_SIDE
    shape = (image.width, image.height) if turned else (image.height, image.width)
    if bits > _EIGHT_BITS and depth == _EIGHT_BITS and not narrow:
        raise InputError(
            f"has {bits} bits per value, of which 8 would be kept",
            where=str(path),
            remedy="Set data.depth = 16 to keep them, or 8 to reduce all pictures to 8 bits.",
        )
    if image.mode in _DEEP_MODES:
        values = upright(image)
        if bits in _RANGES and _is_white_zero(image):  # Pillow turns over only pictures of up to 8 bits
            values = np.float32(_RANGES[bits][1]) - values.astype(np.float32)
        ends = _ends(path, values, bits, window)
        # Clipped first, since otherwise a bright artefact would bleed into its neighbours.
        unit = resize_picture(to_unit(values.astype(np.float32), ends)[..., None], size=size)
        return np.repeat(to_depth(unit, depth), channels, axis=-1), shape
    if bits > _EIGHT_BITS and depth > _EIGHT_BITS:
        raise InputError(
            f"has {bits} bits per colour, which are not read in full",
            where=str(path),
            remedy="Save it with 8 bits per colour, or set data.depth = 8 to use the upper 8.",
        )
    return deepen(_convert(path, image, size=size, channels=channels), depth), shape


def _bits(image: Image.Image) -> int:
    """Bits per value as stored; 32 for floating-point numbers and anything else without a natural range."""
    if image.mode in _DEEP_MODES and not image.mode.startswith("I;16"):
        return _MORE_BITS
    raw = _raw_mode(image)
    if _TWELVE_BITS in raw:
        return 12
    return _SIXTEEN_BITS if _SIXTEEN in raw or image.mode.startswith("I;16") else _EIGHT_BITS


def _raw_mode(image: Image.Image) -> str:
    """Pillow's name of the pixels as stored, such as `RGB;16B`."""
    tiles = getattr(image, "tile", None) or []
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _convert(
    path: Path, image: Image.Image, *, size: tuple[int, int], channels: int
) -> Shaped[np.ndarray, "height width channel"]:
    mode = "L" if channels == 1 else "RGB"
    if image.mode not in _KNOWN_MODES:
        raise InputError(f"has colours of the kind {image.mode}, which is not read", where=str(path))
    turned: Image.Image = image
    if image.getexif().get(_ORIENTATION_TAG, 1) != 1:
        turned = ImageOps.exif_transpose(image)
    elif image.format == "JPEG":
        image.draft(mode, size[::-1])
    if turned.has_transparency_data:
        whole = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", whole.size, (0, 0, 0, 255)), whole)
    if turned.mode != mode:
        turned = turned.convert("RGB").convert(mode) if turned.mode == "RGBA" else turned.convert(mode)
    if turned.size != size[::-1]:
        turned = turned.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(turned, np.uint8).reshape(*size, channels)


def upright(image: Image.Image) -> Shaped[np.ndarray, "height width"]:
    """The values of a grey picture as stored, turned as its header says."""
    turned = ImageOps.exif_transpose(image) if image.getexif().get(_ORIENTATION_TAG, 1) != 1 else image
    return np.asarray(turned)


def _is_white_zero(image: Image.Image) -> bool:
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    return tags.get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO


def _ends(path: Path, values: Shaped[np.ndarray, "height width"], bits: int, window: Window) -> tuple[float, float]:
    """The window of a deep picture: the one requested, or all that its bits can hold."""
    if bits > _SIXTEEN_BITS and not np.isfinite(values).all():
        raise InputError("holds values that are not finite", where=str(path))
    if window == "percentiles":
        return percentile_window(values.astype(np.float32))
    if window == "header":
        raise InputError("has no window in its header", where=str(path), remedy="Set data.window to a range.")
    if window is None and bits not in _RANGES:
        raise InputError(
            "holds values of more than 16 bits, whose range is unknown",
            where=str(path),
            remedy="Set data.window to the relevant range, or to 'percentiles'.",
        )
    return window or _RANGES[bits]
