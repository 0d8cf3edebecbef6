"""How digits are written by hand: strokes in a box of side 1, with several variants of each digit.

Designed for dpmed after how children learn to write them: no picture of a digit was traced or measured. Points are
(right, down); between them a stroke runs straight or as a smooth curve.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

_PER_SPAN = 5  # points of a curve between two of its control points


@dataclass(frozen=True)
class Stroke:
    """One stroke of the pen.

    Attributes:
        points: points that it passes through.
        smooth: whether it is a curve through them instead of straight lines.
    """

    points: tuple[tuple[float, float], ...]
    smooth: bool = True


def _line(*points: tuple[float, float]) -> Stroke:
    return Stroke(points, smooth=False)


def _curve(*points: tuple[float, float]) -> Stroke:
    return Stroke(points)


_ROUND = ((0.5, 0.0), (0.13, 0.18), (0.05, 0.55), (0.2, 0.9), (0.5, 1.0), (0.82, 0.88), (0.95, 0.5), (0.85, 0.15))
_BELLY_OF_3 = ((0.4, 0.45), (0.78, 0.52), (0.92, 0.75), (0.6, 1.0), (0.08, 0.9))
_BELLY_OF_5 = ((0.2, 0.45), (0.6, 0.37), (0.92, 0.65), (0.62, 0.98), (0.08, 0.92))
_BOWL_OF_9 = ((0.85, 0.18), (0.5, 0.0), (0.12, 0.2), (0.3, 0.5), (0.65, 0.48), (0.85, 0.2))

WAYS: dict[int, tuple[tuple[Stroke, ...], ...]] = {
    0: (
        (_curve(*_ROUND, (0.5, 0.0)),),
        (_curve(*_ROUND, (0.45, 0.03)),),
        (_curve((0.7, 0.05), *_ROUND[:-1], (0.8, 0.12), (0.35, 0.06)),),
    ),
    1: (
        (_line((0.5, 0.0), (0.5, 1.0)),),
        (_line((0.22, 0.28), (0.52, 0.0), (0.52, 1.0)),),
        (_line((0.3, 0.18), (0.52, 0.0), (0.52, 1.0)), _line((0.22, 1.0), (0.82, 1.0))),
        (_line((0.1, 0.45), (0.6, 0.0), (0.55, 1.0)),),
    ),
    2: (
        (_curve((0.08, 0.25), (0.4, 0.0), (0.85, 0.2), (0.65, 0.55), (0.06, 1.0)), _line((0.06, 1.0), (0.95, 1.0))),
        (_curve((0.1, 0.2), (0.5, 0.0), (0.88, 0.25), (0.5, 0.75), (0.1, 0.95), (0.2, 0.75), (0.6, 0.92),
               (0.98, 0.95)),),
        (_curve((0.15, 0.1), (0.6, 0.02), (0.85, 0.25), (0.55, 0.65), (0.05, 0.97)), _curve((0.05, 0.97),
               (0.5, 0.93), (0.95, 1.0))),
    ),
    3: (
        (_curve((0.1, 0.12), (0.5, 0.0), (0.85, 0.2), (0.4, 0.45)), _curve(*_BELLY_OF_3)),
        (_line((0.1, 0.0), (0.88, 0.0), (0.4, 0.42)), _curve(*_BELLY_OF_3)),
        (_curve((0.08, 0.08), (0.6, 0.02), (0.8, 0.25), (0.3, 0.47), (0.8, 0.6), (0.8, 0.9), (0.4, 1.0),
               (0.05, 0.92)),),
    ),
    4: (
        (_line((0.7, 0.0), (0.05, 0.66), (0.98, 0.66)), _line((0.7, 0.0), (0.7, 1.0))),
        (_line((0.3, 0.0), (0.06, 0.6), (0.96, 0.6)), _line((0.68, 0.25), (0.62, 1.0))),
        (_curve((0.18, 0.02), (0.1, 0.35), (0.3, 0.52), (0.85, 0.45)), _line((0.88, 0.0), (0.78, 1.0))),
        (_line((0.45, 0.0), (0.05, 0.7), (0.95, 0.62)), _line((0.62, 0.4), (0.58, 1.0))),
    ),
    5: (
        (_line((0.88, 0.0), (0.25, 0.0), (0.2, 0.45)), _curve(*_BELLY_OF_5)),
        (_line((0.22, 0.05), (0.2, 0.45)), _curve(*_BELLY_OF_5), _line((0.22, 0.04), (0.95, 0.0))),
        (_curve((0.9, 0.02), (0.35, 0.05), (0.2, 0.4), (0.75, 0.5), (0.85, 0.8), (0.45, 1.0), (0.05, 0.95)),),
    ),
    6: (
        (_curve((0.75, 0.0), (0.3, 0.3), (0.08, 0.7), (0.4, 1.0), (0.88, 0.8), (0.6, 0.52), (0.14, 0.7)),),
        (_curve((0.4, 0.0), (0.15, 0.4), (0.1, 0.8), (0.45, 1.0), (0.85, 0.85), (0.7, 0.6), (0.35, 0.62),
               (0.14, 0.8)),),
        (_curve((0.9, 0.08), (0.55, 0.03), (0.15, 0.4), (0.15, 0.85), (0.55, 1.0), (0.88, 0.75), (0.55, 0.5),
               (0.16, 0.66)),),
    ),
    7: (
        (_line((0.05, 0.0), (0.95, 0.0), (0.4, 1.0)),),
        (_line((0.05, 0.0), (0.95, 0.0), (0.4, 1.0)), _line((0.28, 0.5), (0.92, 0.48))),
        (_line((0.06, 0.18), (0.08, 0.0), (0.92, 0.0)), _curve((0.92, 0.0), (0.6, 0.45), (0.45, 1.0))),
        (_curve((0.05, 0.1), (0.4, 0.03), (0.95, 0.05)), _line((0.95, 0.05), (0.5, 1.0)), _line((0.35, 0.52),
               (0.95, 0.45))),
    ),
    8: (
        (
            _curve(
                (0.5, 0.47), (0.14, 0.25), (0.5, 0.0), (0.86, 0.25), (0.5, 0.47), (0.08, 0.76), (0.5, 1.0),
                (0.92, 0.76), (0.5, 0.47),
            ),
        ),
        (
            _curve(
                (0.85, 0.15), (0.45, 0.0), (0.18, 0.22), (0.75, 0.62), (0.72, 0.95), (0.35, 1.0), (0.15, 0.8),
                (0.5, 0.48), (0.85, 0.15),
            ),
        ),
        (
            _curve((0.5, 0.0), (0.16, 0.22), (0.5, 0.46), (0.84, 0.22), (0.5, 0.0)),
            _curve((0.5, 0.46), (0.06, 0.75), (0.5, 1.0), (0.94, 0.75), (0.5, 0.46)),
        ),
    ),
    9: (
        (_curve(*_BOWL_OF_9), _line((0.86, 0.1), (0.8, 1.0))),
        (_curve(*_BOWL_OF_9, (0.86, 0.6), (0.65, 0.95), (0.15, 0.97)),),
        (_curve(*_BOWL_OF_9), _curve((0.86, 0.15), (0.75, 0.6), (0.45, 1.0))),
    ),
}  # fmt: skip


def way_points(strokes: tuple[Stroke, ...], random: np.random.Generator, *, wander: float) -> list[np.ndarray]:
    """The strokes as chains of closely spaced points, with each control point moved at random.

    Args:
        strokes: strokes of one variant of a digit.
        random: draws the moves.
        wander: their standard deviation, in sides of the box.
    """
    chains = []
    for stroke in strokes:
        points = np.array(stroke.points) + random.normal(0, wander, (len(stroke.points), 2))
        chains.append(_spline(points) if stroke.smooth else _refined(points))
    return chains


def _refined(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "m 2"]:
    share = np.linspace(0, 1, _PER_SPAN, endpoint=False)[:, None]
    spans = [a + (b - a) * share for a, b in pairwise(points)]
    return np.concatenate([*spans, points[-1:]])


def _spline(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "m 2"]:
    """A curve through the points, by the cubic of E. Catmull and R. Rom (1974)."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0, 1, _PER_SPAN, endpoint=False)[:, None]
    spans = []
    for before, start, end, after in zip(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], strict=True):
        spans.append(
            start
            + 0.5 * t * (end - before)
            + 0.5 * t**2 * (2 * before - 5 * start + 4 * end - after)
            + 0.5 * t**3 * (3 * start - before - 3 * end + after)
        )
    return np.concatenate([*spans, points[-1:]])


def inked(chains: list[np.ndarray], side: int, *, width: float) -> Bool[np.ndarray, "side side"]:
    """Which pixels lie within half a `width` (pixels) of a chain of points (right, down; pixels)."""
    starts = np.concatenate([chain[:-1] for chain in chains]).astype(np.float32)
    along = np.concatenate([chain[1:] for chain in chains]).astype(np.float32) - starts
    centres = np.arange(side, dtype=np.float32) + np.float32(0.5)
    right = centres[None, :, None] - starts[:, 0]
    down = centres[:, None, None] - starts[:, 1]
    length = np.maximum((along**2).sum(axis=1), np.float32(1e-9))
    share = np.clip((right * along[:, 0] + down * along[:, 1]) / length, 0, 1)
    squared = (right - share * along[:, 0]) ** 2 + (down - share * along[:, 1]) ** 2
    return np.asarray(squared.min(axis=-1) <= (width / 2) ** 2)
