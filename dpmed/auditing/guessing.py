"""Guesses by a score about who took part: how many are made, how many are right, and what the best score would show.

Only the surest canaries are guessed: half of the guesses say included, for the highest scores, and half excluded.
"""

import numpy as np
from jaxtyping import Bool, Float

from dpmed.auditing.canaries import log_likelihood_ratio, toss
from dpmed.auditing.lower_limit import epsilon_by_curve
from dpmed.privacy.mechanism import SampledGaussian

# Guessing this share of the canaries gives the highest limits at ε from 1 to 16.
_GUESSED = 0.3
_FEWEST = 10
_SIMULATIONS = 3


def number_of_guesses(canaries: int) -> int:
    """How many of m canaries are guessed; an even number."""
    return max(min(_FEWEST, canaries), int(_GUESSED * canaries)) // 2 * 2


def right_guesses(scores: Float[np.ndarray, " canary"], included: Bool[np.ndarray, " canary"], guesses: int) -> int:
    """How many of the surest guesses are right.

    Args:
        scores: higher for canaries that were more likely included.
        included: which of them were.
        guesses: r, an even number of at most m.
    """
    order = np.argsort(scores, kind="stable")
    half = guesses // 2
    return int(included[order[len(order) - half :]].sum() + (~included[order[:half]]).sum())


def best_limit(claimed: SampledGaussian, *, canaries: int, guesses: int, delta: float, level: float) -> float:
    """The limit by the best score for a training that is as claimed: the median of a few simulations.

    Args:
        claimed: σ, q and T of the training.
        canaries: m.
        guesses: r, an even number of at most m.
        delta: δ in (0, 1).
        level: α in (0, 1).
    """
    generator = np.random.default_rng(0)
    rate, noise = claimed.sampling_rate, claimed.noise_multiplier
    counts = []
    for _ in range(_SIMULATIONS):
        included = toss(canaries, generator)
        ratio = np.zeros(canaries)
        for _ in range(claimed.steps):
            x = (included & (generator.random(canaries) < rate)) + noise * generator.standard_normal(canaries)
            ratio += log_likelihood_ratio(x, rate, noise)
        counts.append(right_guesses(ratio, included, guesses))
    typical = int(np.median(counts))
    return epsilon_by_curve(claimed, canaries=canaries, guesses=guesses, correct=typical, delta=delta, level=level)
