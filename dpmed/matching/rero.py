"""Reconstruction robustness as measured: the share of originals recovered within a distance.

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
    """How many originals were recovered.

    Attributes:
        recovered: matched at a distance of at most the threshold.
        originals: how many there are.
        share: recovered / originals.
        low: lower end of the 95 % confidence interval.
        high: upper end of it.
    """

    recovered: int
    originals: int
    share: float
    low: float
    high: float


def share_recovered(distances: Float[np.ndarray, " matched"], originals: int, *, threshold: float) -> Share:
    """The share of originals with a distance of at most `threshold`.

    Args:
        distances: of the originals that were matched; the others count as not recovered.
        originals: how many there are, at least one.
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
