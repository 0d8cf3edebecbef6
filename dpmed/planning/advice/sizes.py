"""Batch size and number of steps by published rules, from N, ε and δ alone.

Steps: De et al. (2022), "Unlocking high-accuracy differentially private image classification through scale", trained
from random weights for 725 steps on the 50,000 images of CIFAR-10 at ε = 1, and for 71,589 on the 1,281,167 of ImageNet
at ε = 8 (the configs that they published with jax_privacy). Here both are fitted by one power law: proportional to N
and to a power of ε. Two points are little evidence; the power law and the minimum number of steps are our own.

Batch: at a fixed ε and number of steps the noise on the mean gradient, σ/B, falls with the batch size B until it levels
off; beyond that, a larger batch costs time and gains nothing (Ponomareva et al., 2023, "How to DP-fy ML", on choosing
the batch size; Sander et al., 2023, "TAN without a burn": from σ ≈ 2 on, ε depends only on the total noise). We take
the smallest batch whose noise is within a few percent of that of full batches.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dpmed.privacy.budget import Budget, BudgetRequest, solve_budget, steps_per_epoch

_STEPS_PER_RECORD = 725 / 50_000
_POWER_OF_EPSILON = math.log(71_589 / 1_281_167 / _STEPS_PER_RECORD) / math.log(8)
# Randomly initialised weights need some steps to learn anything, however few the patients.
_FEWEST_STEPS = 100
# Our computation: De et al.'s batches of 4,096 and 16,384 have 1 and 5 % more noise than full ones, a batch of 8,192 on
# ImageNet 17 %.
_LEVELLED_OFF = 1.1
# No batch is tried if its σ would be less than about this: its noise has not levelled off.
_LEAST_NOISE = 1.5


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """A batch size and a length, with their budget.

    Attributes:
        batch_size: expected batch size in records.
        epochs: as in the config; there are epochs x floor(N / batch size) steps.
        budget: the budget solved for them.
    """

    batch_size: int
    epochs: int
    budget: Budget

    @property
    def noise(self) -> float:
        """σ / (B √T): noise of the mean over all steps, for one parameter and C = 1."""
        return self.budget.noise_multiplier / (self.batch_size * math.sqrt(self.budget.steps))


def advised_steps(train_size: int, epsilon: float) -> int:
    """The number of steps that published trainings suggest.

    Args:
        train_size: N, in records.
        epsilon: ε > 0.
    """
    return max(_FEWEST_STEPS, round(_STEPS_PER_RECORD * train_size * epsilon**_POWER_OF_EPSILON))


def advised_sizes(request: BudgetRequest) -> Sizes:
    """The batch size and length that the published rules suggest.

    Args:
        request: states N, δ, and the requirement to meet: ε, or a maximum reconstruction risk. Its batch size and
            epochs are ignored.

    Raises:
        InputError: see `solve_budget`.
    """
    full = replace(request, expected_batch_size=request.train_size, epochs=_FEWEST_STEPS, noise_multiplier=None)
    epsilon = solve_budget(full).epsilon if request.epsilon is None else request.epsilon
    steps = advised_steps(request.train_size, epsilon)
    largest = sizes_of(full, batch_size=request.train_size, steps=steps)
    least = _LEAST_NOISE * request.train_size / largest.budget.noise_multiplier
    for batch_size in _powers_of_two(least, request.train_size):
        smaller = sizes_of(full, batch_size=batch_size, steps=steps)
        if smaller.noise <= _LEVELLED_OFF * largest.noise:
            return smaller
    return largest


def sizes_of(request: BudgetRequest, *, batch_size: int, steps: int) -> Sizes:
    """The whole number of epochs that is closest to a number of steps, and its budget.

    Args:
        request: N, δ, and the requirement to meet.
        batch_size: 1 to N.
        steps: at least 1.

    Raises:
        InputError: see `solve_budget`.
    """
    epochs = max(1, round(steps / steps_per_epoch(request.train_size, batch_size)))
    return with_sizes(request, batch_size=batch_size, epochs=epochs)


def with_sizes(request: BudgetRequest, *, batch_size: int, epochs: int) -> Sizes:
    """A batch size and a number of epochs with their budget; see `sizes_of`."""
    asked = replace(request, expected_batch_size=batch_size, epochs=epochs, noise_multiplier=None)
    return Sizes(batch_size=batch_size, epochs=epochs, budget=solve_budget(asked))


def _powers_of_two(least: float, below: int) -> Iterator[int]:
    power = 1
    while power < below:
        if power >= least:
            yield power
        power *= 2
