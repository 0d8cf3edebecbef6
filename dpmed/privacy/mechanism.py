"""Poisson-subsampled Gaussian steps, and sequences of several kinds of them."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SampledGaussian:
    """T Poisson-subsampled Gaussian steps.

    Attributes:
        noise_multiplier: σ > 0.
        sampling_rate: q in (0, 1].
        steps: T >= 0.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.noise_multiplier < math.inf:
            raise ValueError(f"Expected finite {self.noise_multiplier=} > 0.")
        if not 0 < self.sampling_rate <= 1:
            raise ValueError(f"Expected {self.sampling_rate=} in (0, 1].")
        if self.steps < 0:
            raise ValueError(f"Expected {self.steps=} >= 0.")


Mechanisms = tuple[SampledGaussian, ...]
# Beyond these an accountant fails or takes for ever, and sums of steps could leave the integers of the machine and
# begin again below zero.
_MOST_STEPS, _LEAST_NOISE, _MOST_NOISE, _LEAST_RATE = 1 << 32, 1e-100, 1e9, 1e-100


def is_countable(one: SampledGaussian) -> bool:
    """Whether steps can be composed with any others; those of a training can."""
    within = _LEAST_NOISE <= one.noise_multiplier <= _MOST_NOISE and one.sampling_rate >= _LEAST_RATE
    return within and one.steps <= _MOST_STEPS


def counted(mechanisms: Iterable[SampledGaussian]) -> Mechanisms:
    """The same composition with steps of equal σ and q counted together, in a canonical order."""
    counts: Counter[tuple[float, float]] = Counter()
    for one in mechanisms:
        counts[one.sampling_rate, one.noise_multiplier] += one.steps
    return tuple(
        SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps)
        for (rate, noise), steps in sorted(counts.items())
        if steps
    )


def merged(mechanisms: Iterable[SampledGaussian]) -> Mechanisms:
    """The same composition, to an adversary who knows the target's gradient, in as few pieces as possible.

    Steps of equal σ and q are counted together. Full batches, q = 1, of any σ form one Gaussian mechanism, whose 1/σ²
    is the sum of theirs.
    """
    pieces = counted(mechanisms)
    full = [one for one in pieces if one.sampling_rate >= 1]
    if len(full) < 2:  # noqa: PLR2004 nothing to merge
        return pieces
    # Scaled by the smallest σ, so that squares of 1e-200 do not overflow.
    least = min(one.noise_multiplier for one in full)
    precision = math.fsum(one.steps * (least / one.noise_multiplier) ** 2 for one in full)
    together = SampledGaussian(noise_multiplier=least / math.sqrt(precision), sampling_rate=1.0, steps=1)
    return (*(one for one in pieces if one.sampling_rate < 1), together)


def participation(mechanisms: Sequence[SampledGaussian]) -> float:
    """The probability of ever taking part, 1 - ∏ (1 - q)^T."""
    if any(one.sampling_rate >= 1 and one.steps for one in mechanisms):
        return 1.0
    return -math.expm1(math.fsum(one.steps * math.log1p(-one.sampling_rate) for one in mechanisms if one.steps))
