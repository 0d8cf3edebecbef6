"""A noise multiplier and the ε it spends by both accountants: one level of `bounds` and of every attack."""

from dataclasses import dataclass

from dpmed.privacy.accountant import AccountantName, calibrate_noise, epsilon
from dpmed.privacy.mechanism import SampledGaussian


@dataclass(frozen=True, kw_only=True)
class CalibratedNoise:
    """A noise multiplier and its ε.

    Attributes:
        noise_multiplier: σ > 0.
        epsilon_pld: the ε that σ spends, by privacy-loss distributions.
        epsilon_rdp: the ε that σ spends, by Rényi DP.
    """

    noise_multiplier: float
    epsilon_pld: float
    epsilon_rdp: float

    def epsilon(self, accountant: AccountantName) -> float:
        """The ε that σ spends, by the given accountant."""
        return self.epsilon_pld if accountant == "pld" else self.epsilon_rdp


def calibrate(
    target_epsilon: float, *, delta: float, sampling_rate: float, steps: int, accountant: AccountantName = "pld"
) -> CalibratedNoise:
    """The smallest σ that spends at most the target, with the ε it spends by both accountants.

    Args:
        target_epsilon: ε > 0.
        delta: δ in (0, 1).
        sampling_rate: q in (0, 1].
        steps: T >= 1.
        accountant: the accountant that the target refers to.

    Raises:
        InputError: as `calibrate_noise`.
    """
    noise = calibrate_noise(
        epsilon=target_epsilon, delta=delta, sampling_rate=sampling_rate, steps=steps, accountant=accountant
    )
    return assess_noise(noise, delta=delta, sampling_rate=sampling_rate, steps=steps)


def assess_noise(noise_multiplier: float, *, delta: float, sampling_rate: float, steps: int) -> CalibratedNoise:
    """The ε that a given σ spends by both accountants.

    Args:
        noise_multiplier: σ > 0.
        delta: δ in (0, 1).
        sampling_rate: q in (0, 1].
        steps: T >= 1.
    """
    mechanism = SampledGaussian(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, steps=steps)
    return CalibratedNoise(
        noise_multiplier=noise_multiplier,
        epsilon_pld=epsilon(mechanism, delta),
        epsilon_rdp=epsilon(mechanism, delta, accountant="rdp"),
    )
