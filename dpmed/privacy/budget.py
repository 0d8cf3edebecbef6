"""PROVISIONAL, replaced by the privacy helper."""

from dataclasses import dataclass
from functools import lru_cache

from dpmed.privacy.accountant import AccountantName, SampledGaussian, calibrate_noise, epsilon


@dataclass(frozen=True, kw_only=True)
class Spent:
    steps: int
    epsilon_pld: float
    epsilon_rdp: float
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class Budget:
    noise_multiplier: float
    sampling_rate: float
    steps: int
    delta: float
    clipping_norm: float
    train_size: int
    expected_batch_size: int
    accountant: AccountantName
    epsilon_pld: float
    epsilon_rdp: float

    @property
    def epsilon(self) -> float:
        return self.epsilon_pld if self.accountant == "pld" else self.epsilon_rdp

    def spent(self, steps: int) -> Spent:
        return _spent(self, steps)


@lru_cache(maxsize=None)
def _spent(budget: Budget, steps: int) -> Spent:
    mechanism = SampledGaussian(
        noise_multiplier=budget.noise_multiplier, sampling_rate=budget.sampling_rate, steps=steps
    )
    pld = epsilon(mechanism, budget.delta)
    rdp = epsilon(mechanism, budget.delta, accountant="rdp")
    return Spent(steps=steps, epsilon_pld=pld, epsilon_rdp=rdp, epsilon=pld if budget.accountant == "pld" else rdp)


@dataclass(frozen=True, kw_only=True)
class BudgetRequest:
    train_size: int
    expected_batch_size: int
    delta: float
    clipping_norm: float
    accountant: AccountantName = "pld"
    epsilon: float | None = None
    noise_multiplier: float | None = None
    epochs: int | None = None
    max_reconstruction_risk: float | None = None
    adversary: str | None = None
    prior: float | None = None


def solve_budget(request: BudgetRequest) -> Budget:
    steps = request.train_size // request.expected_batch_size * request.epochs
    rate = request.expected_batch_size / request.train_size
    sigma = request.noise_multiplier or calibrate_noise(
        epsilon=request.epsilon, delta=request.delta, sampling_rate=rate, steps=steps, accountant=request.accountant
    )
    mechanism = SampledGaussian(noise_multiplier=sigma, sampling_rate=rate, steps=steps)
    return Budget(
        noise_multiplier=sigma,
        sampling_rate=rate,
        steps=steps,
        delta=request.delta,
        clipping_norm=request.clipping_norm,
        train_size=request.train_size,
        expected_batch_size=request.expected_batch_size,
        accountant=request.accountant,
        epsilon_pld=epsilon(mechanism, request.delta),
        epsilon_rdp=epsilon(mechanism, request.delta, accountant="rdp"),
    )
