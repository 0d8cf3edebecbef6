"""Drawing tools for phantoms: outlines, smooth fields, colours, noise. Everything follows from the generator."""

import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image


def generator(seed: int, *numbers: int) -> np.random.Generator:
    """The random generator of one phantom, independent of how many others are made."""
    # The count is included too, since NumPy treats a seed with trailing zeros as the same seed.
    return np.random.default_rng([0x9A47, len(numbers), seed, *numbers])


def grid(*sides: int) -> list[Float[np.ndarray, "..."]]:
    """Coordinates from -1 to 1 along each axis, to be broadcast against each other."""
    axes = np.meshgrid(*[np.linspace(-1, 1, side, dtype=np.float32) for side in sides], indexing="ij", sparse=True)
    return list(axes)


def smooth_field(random: np.random.Generator, sides: tuple[int, int], *, cells: int) -> Float[np.ndarray, "y x"]:
    """A random field with mean about 0 and standard deviation about 1 that varies over about a `cells`-th of a side."""
    coarse = random.standard_normal((cells + 1, cells + 1), np.float32)
    image = Image.fromarray(coarse).resize(sides[::-1], Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


def blob(
    random: np.random.Generator,
    sides: tuple[int, int],
    *,
    centre: tuple[float, float],
    radius: float,
    irregularity: float,
) -> Float[np.ndarray, "y x"]:
    """A blob with a wavy outline: above 0 inside, falling to -1 and below outside.

    Args:
        random: draws the waves.
        sides: height and width, pixels.
        centre: in coordinates of -1 to 1.
        radius: as a fraction of half the height.
        irregularity: 0 for a circle; 0.3 for a ragged edge.
    """
    y, x = grid(*sides)
    aspect = sides[1] / sides[0]
    down, right = y - centre[0], (x - centre[1]) * aspect
    angle = np.arctan2(down, right)
    edge = np.ones_like(angle)
    for wave in range(2, 8):
        size = irregularity * random.standard_normal(dtype=np.float32) / wave**0.5
        edge += size * np.cos(wave * angle + random.uniform(0, 2 * np.pi))
    return np.float32(1) - np.hypot(down, right) / (np.float32(radius) * np.maximum(edge, 0.2))


def ellipsoid(
    axes: list[Float[np.ndarray, "..."]], centre: Float[np.ndarray, "3"], radii: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "x y z"]:
    """Above 0 inside an ellipsoid, in coordinates of -1 to 1."""
    total = sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True))
    return np.asarray(1 - total, np.float32)


def to_bytes(values: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """0 to 1 as 0 to 255."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def encode(pixels: UInt8[np.ndarray, "..."], kind: str) -> bytes:
    """A picture as the bytes of a PNG or JPEG file."""
    buffer = io.BytesIO()
    options = {"quality": 90} if kind == "JPEG" else {"compress_level": 1}
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()
