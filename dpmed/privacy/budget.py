"""The budget of a training run: solved once from the user's request, then only read.

Two of ε, the noise multiplier and the number of epochs determine the third; a maximum reconstruction risk may replace
ε.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

from dpmed.errors import InputError
from dpmed.privacy.accountant import (
    AccountantName,
    calibrate_noise,
    calibrate_steps,
)
from dpmed.privacy.calibrated import assess_noise
from dpmed.privacy.loss.losses import Adversary
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.rero import noise_for_risk
from dpmed.privacy.second_opinion import SecondOpinion, second_opinion


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The cost of a number of draws.

    Attributes:
        steps: draws counted.
        epsilon_pld: tight ε.
        epsilon_rdp: ε by Rényi accounting.
        epsilon: the ε of the run's accountant.
    """

    steps: int
    epsilon_pld: float
    epsilon_rdp: float
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A solved budget.

    Attributes:
        noise_multiplier: σ > 0.
        sampling_rate: q in (0, 1].
        steps: T, draws planned.
        delta: δ in (0, 1).
        clipping_norm: C > 0.
        train_size: N, records.
        expected_batch_size: q·N.
        accountant: the accountant that ε refers to.
        epsilon_pld: tight ε of all planned draws.
        epsilon_rdp: the same by Rényi accounting.
    """

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
        """The ε of the run's accountant."""
        return self.epsilon_pld if self.accountant == "pld" else self.epsilon_rdp

    @property
    def mechanism(self) -> SampledGaussian:
        """All planned draws."""
        return SampledGaussian(
            noise_multiplier=self.noise_multiplier, sampling_rate=self.sampling_rate, steps=self.steps
        )

    def spent(self, steps: int) -> Spent:
        """The cost of `steps` draws."""
        return _spent(self, steps)

    def second_opinion(self, steps: int) -> SecondOpinion | None:
        """The ε of `steps` draws by dp-accounting; None outside its range."""
        return second_opinion(
            noise_multiplier=self.noise_multiplier, sampling_rate=self.sampling_rate, steps=steps, delta=self.delta
        )

    def require_agreement(self) -> None:
        """Check the tight ε of all planned draws against dp-accounting's.

        Raises:
            InputError: ours is lower by more than dp-accounting's discretisation explains, so one of the two is wrong.
        """
        opinion = self.second_opinion(self.steps)
        if opinion is not None and opinion.contradicts(self.epsilon_pld):
            raise InputError(
                f"ε = {self.epsilon_pld:.6g} by dpmed's accountant is below the {opinion.epsilon:.6g} of dp-accounting "
                f"at σ = {self.noise_multiplier:.6g}, q = {self.sampling_rate:.6g}, T = {self.steps}; no "
                "training starts while ε is in doubt",
                remedy="Please report these numbers; until this is resolved, choose other settings.",
            )


@lru_cache(maxsize=4096)
def _spent(budget: Budget, steps: int) -> Spent:
    found = assess_noise(budget.noise_multiplier, delta=budget.delta, sampling_rate=budget.sampling_rate, steps=steps)
    return Spent(
        steps=steps,
        epsilon_pld=found.epsilon_pld,
        epsilon_rdp=found.epsilon_rdp,
        epsilon=found.epsilon(budget.accountant),
    )


def steps_per_epoch(train_size: int, expected_batch_size: int) -> int:
    """Steps per epoch, in expectation: floor(N / expected batch size)."""
    return train_size // expected_batch_size


@dataclass(frozen=True, kw_only=True)
class BudgetRequest:
    """What the user asked for.

    Attributes:
        train_size: N >= 1 records.
        expected_batch_size: 1 to N.
        delta: δ in (0, 1).
        clipping_norm: C > 0.
        accountant: the accountant that ε refers to.
        epsilon: ε > 0, or None.
        noise_multiplier: σ > 0, or None.
        epochs: at least 1, or None.
        max_reconstruction_risk: replaces ε: the highest permitted bound on the risk of reconstruction, above `prior`.
        adversary: the adversary that this risk refers to.
        prior: κ; None for 1 / N.
    """

    train_size: int
    expected_batch_size: int
    delta: float
    clipping_norm: float
    accountant: AccountantName = "pld"
    epsilon: float | None = None
    noise_multiplier: float | None = None
    epochs: int | None = None
    max_reconstruction_risk: float | None = None
    adversary: Adversary | None = None
    prior: float | None = None

    @property
    def sampling_rate(self) -> float:
        """The sampling rate q."""
        return self.expected_batch_size / self.train_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps per epoch."""
        return steps_per_epoch(self.train_size, self.expected_batch_size)


def solve_budget(request: BudgetRequest) -> Budget:
    """The budget that meets a request.

    Raises:
        InputError: the request does not give exactly two of ε, σ and epochs, or cannot be met; the message says why.
    """
    if not 1 <= request.expected_batch_size <= request.train_size:
        raise InputError(
            f"an expected batch of {request.expected_batch_size} out of {request.train_size} records",
            where="expected_batch_size",
            remedy=f"Choose 1 to {request.train_size}.",
        )
    steps = _steps(request)
    found = assess_noise(_noise(request, steps), delta=request.delta, sampling_rate=request.sampling_rate, steps=steps)
    return Budget(
        noise_multiplier=found.noise_multiplier,
        sampling_rate=request.sampling_rate,
        steps=steps,
        delta=request.delta,
        clipping_norm=request.clipping_norm,
        train_size=request.train_size,
        expected_batch_size=request.expected_batch_size,
        accountant=request.accountant,
        epsilon_pld=found.epsilon_pld,
        epsilon_rdp=found.epsilon_rdp,
    )


def _steps(request: BudgetRequest) -> int:
    if request.epochs is not None:
        return request.epochs * request.steps_per_epoch
    if request.epsilon is None or request.noise_multiplier is None:
        raise InputError("two of epsilon, noise_multiplier and epochs are needed", where="epsilon")
    allowed = calibrate_steps(
        epsilon=request.epsilon,
        delta=request.delta,
        sampling_rate=request.sampling_rate,
        noise_multiplier=request.noise_multiplier,
        accountant=request.accountant,
    )
    epochs = allowed // request.steps_per_epoch
    if epochs == 0:
        raise InputError(
            f"ε = {request.epsilon:g} at σ = {request.noise_multiplier:g} allows {allowed} steps, but one epoch has "
            f"{request.steps_per_epoch}",
            where="epsilon",
            remedy="Choose more noise or a larger ε.",
        )
    return epochs * request.steps_per_epoch


def _noise(request: BudgetRequest, steps: int) -> float:
    if request.noise_multiplier is not None:
        return request.noise_multiplier
    if request.max_reconstruction_risk is not None and request.adversary is not None:
        return noise_for_risk(
            request.max_reconstruction_risk,
            adversary=request.adversary,
            prior=request.prior if request.prior is not None else 1 / request.train_size,
            sampling_rate=request.sampling_rate,
            steps=steps,
        )
    if request.epsilon is None or not 0 < request.epsilon < math.inf:
        raise InputError("two of epsilon, noise_multiplier and epochs are needed", where="epsilon")
    return calibrate_noise(
        epsilon=request.epsilon,
        delta=request.delta,
        sampling_rate=request.sampling_rate,
        steps=steps,
        accountant=request.accountant,
    )
