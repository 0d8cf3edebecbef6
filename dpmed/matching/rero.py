"""Measured reconstruction robustness: the fraction of originals recovered within a distance.

Source: Balle, Cherubin and Hayes (2022), "Reconstructing training data with informed adversaries", definition of
(η, γ)-reconstruction robustness; the interval is that of Clopper and Pearson (1934).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dpmed.metrics.intervals import binomial_interval

_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Share:
    """The fraction of originals that were recovered.

    Attributes:
        recovered: number matched at a distance of at most the threshold.
        originals: number of originals.
        share: recovered / originals.
        low: lower end of the 95 % confidence interval.
        high: upper end of the interval.
    """

    recovered: int
    originals: int
    share: float
    low: float
    high: float


def share_recovered(distances: Float[np.ndarray, " matched"], originals: int, *, threshold: float) -> Share:
    """The fraction of originals with a distance of at most `threshold`.

    Args:
        distances: those of the originals that were matched; the others count as not recovered.
        originals: number of originals, at least one.
        threshold: η.

    Raises:
        ValueError: there are more distances than originals, or no originals.
    """
    if not 0 < originals or len(distances) > originals:
        raise ValueError(f"Expected at most {originals=} distances and one original, got {len(distances)=}.")
    recovered = int((distances <= threshold).sum())
    interval = binomial_interval(recovered, originals, confidence=_CONFIDENCE)
    return Share(
        recovered=recovered, originals=originals, share=recovered / originals, low=interval.low, high=interval.high
    )
