"""Converts values of any depth to a fixed range and depth: clip to a window, map to 0 to 1, keep 8 or 16 bits."""

from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped, UInt8

Window = tuple[float, float] | Literal["header", "percentiles"] | None
Depth = Literal[8, 16]

# What CT can hold: 12 bits from air to dense bone.
HU_WINDOW = (-1024.0, 3071.0)
# Fraction of the values below and above the range, for values without a unit.
PERCENTILES = (0.5, 99.5)


def to_unit(values: Float[np.ndarray, "*shape"], window: tuple[float, float]) -> Float[np.ndarray, "*shape"]:
    """Clip to a window and map it to 0 to 1, however small the unit; values that are all the same become 0."""
    low, high = np.float32(window[0]), np.float32(window[1])
    return (np.clip(values, low, high) - low) / (high - low if high > low else np.float32(1))


def percentile_window(values: Float[np.ndarray, "*shape"]) -> tuple[float, float]:
    """The 0.5th and 99.5th percentile, a window for values without a unit."""
    low, high = np.percentile(values, PERCENTILES)
    return float(low), float(high)


def scale_of(depth: Depth) -> float:
    """The stored value that stands for 1."""
    return 255.0 if depth == 8 else 65535.0  # noqa: PLR2004 bits


def to_depth(unit: Float[np.ndarray, "*shape"], depth: Depth) -> Shaped[np.ndarray, "*shape"]:
    """Values from 0 to 1 as uint8 or uint16, rounded."""
    return np.rint(unit * np.float32(scale_of(depth))).astype(np.uint8 if depth == 8 else np.uint16)  # noqa: PLR2004 bits


def deepen(pixels: UInt8[np.ndarray, "*shape"], depth: Depth) -> Shaped[np.ndarray, "*shape"]:
    """8-bit pixels at a depth; 255 stays the brightest."""
    return pixels if depth == 8 else pixels.astype(np.uint16) * np.uint16(257)  # noqa: PLR2004 bits
