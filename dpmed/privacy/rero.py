"""Reconstruction robustness: an upper bound on the chance that an attacker reconstructs a given patient's data.

A reconstruction succeeds when it comes within some distance of the original. κ is the chance of that without having
seen the model, from what is known anyway. Having seen it, the chance is at most γ(κ): the TPR at FPR κ of the best test
for whether that patient's data took part. γ is the blow-up function of Hayes, Mahloujifar & Balle (2023) and 1 - f(κ)
of Kaissis et al. (2023); the relaxed adversary is that of Ziller et al. (2024).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from scipy import optimize

from dpmed.errors import InputError
from dpmed.privacy.constant_sign import constant_sign_upper
from dpmed.privacy.loss.losses import Adversary
from dpmed.privacy.tradeoff import Composition, Power

REPORTED_FPR = 1e-3
_SMALLEST_NOISE, _LARGEST_NOISE = 1e-9, 1e9


@dataclass(frozen=True, kw_only=True)
class Risk:
    """What one adversary can do.

    Attributes:
        upper: bound on the chance of reconstruction, proven.
        lower: what it is at least; the gap to `upper` shows how tight the bound is.
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


@lru_cache(maxsize=4096)
def reconstruction(composition: Composition, prior: float) -> Power:
    """γ(κ), from above and below."""
    return composition.power(prior)


@lru_cache(maxsize=4096)
def _upper(composition: Composition, prior: float) -> float:
    return composition.upper_power(prior)


def noise_for_risk(max_risk: float, *, adversary: Adversary, prior: float, sampling_rate: float, steps: int) -> float:
    """The smallest σ at which the adversary's bound is at most `max_risk`.

    Args:
        max_risk: R in (κ, 1).
        adversary: whose bound.
        prior: κ in (0, 1).
        sampling_rate: q in (0, 1].
        steps: T >= 1.

    Raises:
        InputError: R is not above κ, which no noise achieves; or R is never exceeded, at no noise either.
    """
    if not prior < max_risk < 1:
        raise InputError(
            f"a risk of {max_risk:g} is not between the prior κ = {prior:g}, which guessing reaches without the model, "
            "and 1",
            where="max_reconstruction_risk",
            remedy=f"Choose a risk above {prior:g}.",
        )

    def composed(noise: float) -> Composition:
        return Composition(adversary=adversary, noise_multiplier=noise, sampling_rate=sampling_rate, steps=steps)

    certain = composed(1.0).participation
    if certain + (1 - certain) * prior <= max_risk:
        raise InputError(
            f"the chance of ever taking part is only {certain:.3g}, so the risk stays at or under {max_risk:g} at any "
            "noise, and there is nothing to calibrate",
            where="max_reconstruction_risk",
        )
    return _smallest_noise(lambda noise: _upper(composed(noise), prior), max_risk)


def _smallest_noise(risk: Callable[[float], float], target: float) -> float:
    high = 1.0
    while risk(high) > target:
        high *= 2
        if high > _LARGEST_NOISE:
            raise InputError(f"no noise multiplier up to {_LARGEST_NOISE:g} brings the risk to {target:g}")
    low = high / 2
    while low > _SMALLEST_NOISE and risk(low) <= target:
        low, high = low / 2, low
    found = float(optimize.brentq(lambda noise: risk(noise) - target, low, high, xtol=1e-12, rtol=1e-7))
    # The root is found to seven digits from either side; the guarantee needs the safe one.
    while risk(found) > target:
        found *= 1 + 2e-7
    return found


def assumption_notes(composition: Composition, *, prior: float, max_risk: float) -> tuple[str, ...]:
    """What a ledger must say of a run whose noise was calibrated to a reconstruction risk."""
    bound = reconstruction(replace(composition, adversary="worst-case"), prior).upper
    first = (
        f"The noise was calibrated to a reconstruction risk of at most {max_risk:g} at prior κ = {prior:.4g} for the "
        f"{composition.adversary} adversary."
    )
    if composition.adversary == "worst-case":
        return (first,)
    constant = constant_sign_upper(composition, prior)
    return (
        first,
        "That rests on an assumption about the attacker, who is taken not to know the direction of the patient's "
        "gradient (a χ² test in each step): it is no differential-privacy guarantee. ε as stated holds without it.",
        "The direction is taken as unknown anew in each step. An attacker who does not know it, but that it stays the "
        f"same over the whole training, can do more: at most {constant:.4g} at the same κ.",
        f"Without the assumption, the worst-case adversary's bound at the same κ is {bound:.4g}.",
    )
