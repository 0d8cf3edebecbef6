"""PROVISIONAL, replaced by the privacy helper: ε of the T-fold Poisson-subsampled Gaussian mechanism."""

import math
from dataclasses import dataclass
from typing import Literal

AccountantName = Literal["pld", "rdp"]


@dataclass(frozen=True, kw_only=True)
class SampledGaussian:
    """T-fold Poisson-subsampled Gaussian."""

    noise_multiplier: float
    sampling_rate: float
    steps: int


def epsilon(mechanism: SampledGaussian, delta: float, *, accountant: AccountantName = "pld") -> float:
    """ε at δ."""
    if mechanism.steps == 0:
        return 0.0
    import dp_accounting
    from dp_accounting import pld, rdp

    if accountant == "rdp":
        made = rdp.RdpAccountant()
    else:
        made = pld.PLDAccountant(value_discretization_interval=1e-3)
    event = dp_accounting.PoissonSampledDpEvent(
        mechanism.sampling_rate, dp_accounting.GaussianDpEvent(mechanism.noise_multiplier)
    )
    made.compose(event, mechanism.steps)
    return float(made.get_epsilon(delta))


def calibrate_noise(
    *, epsilon: float, delta: float, sampling_rate: float, steps: int, accountant: AccountantName = "pld"
) -> float:
    """Smallest σ."""
    low, high = 1e-2, 1.0
    target = globals()["epsilon"]

    def at(sigma: float) -> float:
        mechanism = SampledGaussian(noise_multiplier=sigma, sampling_rate=sampling_rate, steps=steps)
        return float(target(mechanism, delta, accountant=accountant))

    while at(high) > epsilon:
        low, high = high, high * 2
    low = max(low, high / 2)
    for _ in range(14):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if at(middle) > epsilon else (low, middle)
    return high
