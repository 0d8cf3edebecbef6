"""Reconstruction robustness: an upper bound on the probability that an attacker reconstructs a given patient's data.

A reconstruction succeeds if it comes within some distance of the original. κ is the probability of that without having
seen the model, from prior knowledge alone. After seeing the model, the probability is at most γ(κ): the TPR at FPR κ of
the best test for whether that patient's data took part. γ is the blow-up function of Hayes, Mahloujifar & Balle (2023)
and 1 - f(κ) of Kaissis et al. (2023); the relaxed adversary is that of Ziller et al. (2024).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from scipy import optimize

from dpmed.errors import InputError
from dpmed.privacy.loss.losses import Adversary
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.tradeoff import Composition, Power

REPORTED_FPR = 1e-3
_SMALLEST_NOISE, _LARGEST_NOISE = 1e-9, 1e9


@dataclass(frozen=True, kw_only=True)
class Risk:
    """The risk from one adversary.

    Attributes:
        upper: proven upper bound on the probability of reconstruction.
        lower: lower bound on the same; the gap to `upper` shows how tight the bound is.
        advantage: bound on TPR - FPR of membership inference.
        tpr: bound on its TPR at an FPR of 0.001.
    """

    upper: float
    lower: float
    advantage: float
    tpr: float


def assess(composition: Composition, *, prior: float) -> Risk:
    """The risks of T steps at prior κ in (0, 1)."""
    power = reconstruction(composition, prior)
    return Risk(
        upper=power.upper,
        lower=power.lower,
        advantage=composition.advantage(),
        tpr=composition.upper_power(REPORTED_FPR),
    )


def assess_epsilon(epsilon: float, delta: float, *, prior: float) -> Risk:
    """The risks that an (ε, δ) alone leaves open, whatever the mechanism; `lower` is κ, since nothing more is known.

    Args:
        epsilon: ε >= 0.
        delta: δ in [0, 1].
        prior: κ in (0, 1).

    Source: Kairouz, Oh & Viswanath (2015), the region of errors of (ε, δ).
    """
    shrunk = math.exp(-epsilon)

    def power(fpr: float) -> float:
        # TPR <= δ + e^ε FPR, and 1 - FPR <= δ + e^ε (1 - TPR); the first without overflow.
        grown = delta + fpr / shrunk if fpr < shrunk else 1.0
        return max(fpr, min(1.0, grown, 1 - shrunk * (1 - delta - fpr)))

    # TPR - FPR is largest where the two lines meet.
    advantage = min(1.0, (1 - shrunk + 2 * delta * shrunk) / (1 + shrunk))
    return Risk(upper=power(prior), lower=prior, advantage=advantage, tpr=power(REPORTED_FPR))


@lru_cache(maxsize=4096)
def reconstruction(composition: Composition, prior: float) -> Power:
    """γ(κ), from above and below."""
    return composition.power(prior)


@lru_cache(maxsize=4096)
def _upper(composition: Composition, prior: float) -> float:
    return composition.upper_power(prior)


def noise_for_risk(max_risk: float, *, adversary: Adversary, prior: float, sampling_rate: float, steps: int) -> float:
    """The smallest σ at which the bound for this adversary is at most `max_risk`.

    Args:
        max_risk: R in (κ, 1).
        adversary: the adversary that is bounded.
        prior: κ in (0, 1).
        sampling_rate: q in (0, 1].
        steps: T >= 1.

    Raises:
        InputError: R is not above κ, which no noise can achieve; or R is never exceeded, even without noise.
    """
    if not prior < max_risk < 1:
        raise InputError(
            f"a risk of {max_risk:g} is not between the prior κ = {prior:g}, which guessing achieves "
            "without the model, and 1",
            where="max_reconstruction_risk",
            remedy=f"Choose a risk above {prior:g} and below 1 (5 % is 0.05).",
        )

    def composed(noise: float) -> Composition:
        own = SampledGaussian(noise_multiplier=noise, sampling_rate=sampling_rate, steps=steps)
        return Composition.of((own,), adversary)

    certain = composed(1.0).participation
    if certain + (1 - certain) * prior <= max_risk:
        raise InputError(
            f"the probability of ever taking part is only {certain:.3g}, so the risk is at most {max_risk:g} at any "
            "noise, and there is nothing to calibrate",
            where="max_reconstruction_risk",
        )
    return _smallest_noise(lambda noise: _upper(composed(noise), prior), max_risk)


def _smallest_noise(risk: Callable[[float], float], target: float) -> float:
    high = 1.0
    while risk(high) > target:
        high *= 2
        if high > _LARGEST_NOISE:
            raise InputError(f"no noise multiplier up to {_LARGEST_NOISE:g} reduces the risk to {target:g}")
    low = high / 2
    while low > _SMALLEST_NOISE and risk(low) <= target:
        low, high = low / 2, low
    found = float(optimize.brentq(lambda noise: risk(noise) - target, low, high, xtol=1e-12, rtol=1e-7))
    # The root is found to seven digits from either side; the guarantee needs the safe side.
    while risk(found) > target:
        found *= 1 + 2e-7
    return found
