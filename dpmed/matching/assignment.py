"""Which reconstruction belongs to which original, given all distances."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

Assignment = Literal["nearest", "one-to-one"]
ASSIGNMENTS: tuple[Assignment, ...] = ("nearest", "one-to-one")
UNMATCHED = -1


@dataclass(frozen=True, eq=False)
class Matches:
    """The reconstruction assigned to each original.

    Attributes:
        nearest: number of the reconstruction, or -1 if none was left.
        distances: its distance; NaN if none was left.
    """

    nearest: Int[np.ndarray, " original"]
    distances: Float[np.ndarray, " original"]


def assign(distances: Float[np.ndarray, "original reconstruction"], assignment: Assignment) -> Matches:
    """Choose a reconstruction for every original.

    `nearest` lets one reconstruction serve several originals, which is the attacker's best case; `one-to-one` uses each
    at most once and minimises the sum of distances (Jonker & Volgenant, by SciPy).

    Args:
        distances: finite distances.
        assignment: how to choose.

    Raises:
        ValueError: a distance is not finite.
    """
    if not np.isfinite(distances).all():
        raise ValueError("Expected finite distances.")
    originals, reconstructions = distances.shape
    nearest = np.full(originals, UNMATCHED, np.int64)
    if reconstructions and assignment == "nearest":
        nearest[:] = distances.argmin(1)
    elif reconstructions:
        rows, columns = linear_sum_assignment(distances)
        nearest[rows] = columns
    found = np.full(originals, np.nan)
    matched = nearest != UNMATCHED
    found[matched] = distances[matched, nearest[matched]]
    return Matches(nearest, found)
