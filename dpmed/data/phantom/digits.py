"""Rendered digits in the format of scikit-learn's, from fonts included in matplotlib and from pen strokes.

Each is a bitmap of 32 × 32 pixels, deformed at random, whose ink is counted in blocks of 4 × 4: 8 × 8 counts of 0 to
16, as E. Alpaydin and C. Kaynak made theirs (Optical Recognition of Handwritten Digits, UCI, 1998). None of their 1,797
pictures is used: nothing here reads them, and none of the ranges below was fitted to them.
"""

from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt, map_coordinates

from dpmed.data.phantom.shapes import encode, generator, smooth_field
from dpmed.data.phantom.strokes import WAYS, inked, way_points
from dpmed.files import make_folder, write_bytes
from dpmed.progress import Progress

BITMAP = 32
_BLOCK = 4
_MOST = _BLOCK * _BLOCK  # maximum ink of a block
_FONTS = (
    "DejaVuSans", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSans-Bold",
    "STIXGeneral", "STIXGeneralItalic", "STIXGeneralBol", "cmr10", "cmss10", "cmtt10",
)  # fmt: skip
_GLYPH = 64  # side of a glyph's picture before it is deformed
_BY_FONT = 0.3  # fraction of the pictures
_MAX_SLANT, _MAX_TURN = 0.35, 0.2  # shear; radians
_WANDER = 0.04  # of a pen's control points, in sides of the digit's box
_WIDTHS = 2.6, 5.8  # of the pen, pixels of the bitmap
_WIDEST = 28  # largest width of a digit, in pixels of the bitmap


def write_digits(folder: Path, *, num: int, seed: int, progress: Progress) -> None:
    """Write `num` PNGs of 8 × 8 pixels into one folder per digit; a full block is white."""
    for digit in WAYS:
        make_folder(folder / str(digit))
    with progress.task("rendering digits", total=num, unit="pictures") as task:
        for number in range(num):
            digit = number % len(WAYS)
            counts = count_blocks(draw_digit(generator(seed, number), digit))
            pixels = np.rint(counts * (255 / _MOST)).astype(np.uint8)
            write_bytes(folder / str(digit) / f"digit{number:06d}.png", encode(pixels, "PNG"), durable=False)
            task.advance()


def count_blocks(bitmap: Bool[np.ndarray, "32 32"]) -> UInt8[np.ndarray, "8 8"]:
    """The ink of each block of 4 × 4 pixels, 0 to 16."""
    side = BITMAP // _BLOCK
    return bitmap.reshape(side, _BLOCK, side, _BLOCK).sum(axis=(1, 3)).astype(np.uint8)


def draw_digit(random: np.random.Generator, digit: int) -> Bool[np.ndarray, "32 32"]:
    """The bitmap of one digit, from the upper edge to the lower, in its own proportions."""
    return _from_font(random, digit) if random.random() < _BY_FONT else _by_hand(random, digit)


def _by_hand(random: np.random.Generator, digit: int) -> Bool[np.ndarray, "32 32"]:
    ways = WAYS[digit]
    chains = way_points(ways[random.integers(len(ways))], random, wander=_WANDER)
    ends = np.cumsum([len(chain) for chain in chains])[:-1]
    moved = (np.concatenate(chains) - 0.5) @ _change(random).T
    width = random.uniform(*_WIDTHS)
    low, high = moved.min(axis=0), moved.max(axis=0)
    # The centre of the pen stays half its width away from the edges.
    scale = (BITMAP - width) / (high[1] - low[1])
    across = min(scale, (_WIDEST - width) / max(high[0] - low[0], 1e-6))
    placed = (moved - (low + high) / 2) * np.array([across, scale]) + BITMAP / 2
    return inked(np.split(placed, ends), BITMAP, width=width)


def _change(random: np.random.Generator) -> Float[np.ndarray, "2 2"]:
    """A random rotation, slant and stretch."""
    turn = random.normal(0, _MAX_TURN / 2)
    slant = np.clip(random.normal(0, _MAX_SLANT / 2), -_MAX_SLANT, _MAX_SLANT)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shear = np.array([[1.0, -slant], [0.0, 1.0]])
    return rotation @ shear @ np.diag([random.uniform(0.5, 0.95), 1.0])


def _from_font(random: np.random.Generator, digit: int) -> Bool[np.ndarray, "32 32"]:
    field = _glyph(_FONTS[random.integers(len(_FONTS))], digit)
    axes = np.linspace(-0.75, 0.75, _GLYPH)
    right, down = np.meshgrid(axes, axes)
    inverse = np.linalg.inv(_change(random) / 0.7)
    bent = [0.03 * smooth_field(random, (_GLYPH, _GLYPH), cells=3) for _ in range(2)]
    x = inverse[0, 0] * right + inverse[0, 1] * down + bent[0]
    y = inverse[1, 0] * right + inverse[1, 1] * down + bent[1]
    places = np.stack([y + 0.5, x + 0.5]) * (_GLYPH - 1)
    depth = map_coordinates(field, places, order=1, mode="nearest")
    ink = depth > random.uniform(-2.0, 0.6)
    return _fitted(ink if ink.any() else depth >= depth.max())


@cache
def _glyph(font: str, digit: int) -> Float[np.ndarray, "64 64"]:
    """Distance from the outline of a font's digit, pixels; above 0 inside."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    picture = Image.new("L", (_GLYPH, _GLYPH))
    face = ImageFont.truetype(str(path), 56)
    ImageDraw.Draw(picture).text((_GLYPH / 2, _GLYPH / 2), str(digit), fill=255, font=face, anchor="mm")
    inside = np.asarray(picture) > 127  # noqa: PLR2004 half covered
    return np.asarray(distance_transform_edt(inside) - distance_transform_edt(~inside), np.float32)


def _fitted(ink: Bool[np.ndarray, "y x"]) -> Bool[np.ndarray, "32 32"]:
    """The ink cut out and stretched to the full height of the bitmap, centred across it."""
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    width = int(np.clip(round(cut.shape[1] * BITMAP / cut.shape[0]), 1, _WIDEST))
    small = np.asarray(Image.fromarray(cut).resize((width, BITMAP), Image.Resampling.NEAREST))
    left = (BITMAP - width) // 2
    return np.pad(small, ((0, 0), (left, BITMAP - width - left)))
