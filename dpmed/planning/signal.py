"""Noise compared with the longest possible gradient: whether a plan can work, from public facts alone.

A step's mean clipped gradient is at most C long; its noise has a length of about σ C √d / B over d trained numbers. The
mean over T steps keeps a signal of constant direction, and 1/√T of the noise. This is the best case; no patient's
gradient is used.

Source: the lengths follow from Abadi et al. (2016), Algorithm 1.
"""

import math
from dataclasses import dataclass

from dpmed.dpsgd.clipping import Clipping
from dpmed.privacy.budget import Budget
from dpmed.rounding import rounded_up

# Above this ratio the plan contains a warning. Computed for shipped configs: quickstart 0.03, phantoms from 0.05 to 6
# (liver, volumes one by one); that of the paper's own liver training is about 15, computed by hand. Without a warning,
# a plan may still fail to learn.
LARGEST_RATIO = 25.0


@dataclass(frozen=True, kw_only=True)
class NoiseToSignal:
    """Length of the noise divided by that of the longest possible signal.

    Attributes:
        step: for one step, σ √d / B.
        training: for the mean over all T steps, σ √d / (B √T).
    """

    step: float
    training: float

    def describe(self) -> str:
        """The plan's line about noise and signal."""
        return (
            f"a step's noise is {self.step:.3g} times as long as its mean gradient can be; averaged over all "
            f"steps {self.training:.3g} times"
        )

    def fewer_parameters(self, parameters: int, *, limit: float) -> int:
        """How many parameters may be trained for the ratio over all steps, which grows as their root, to be `limit`."""
        return max(1, int(parameters / (self.training / limit) ** 2))

    def warnings(self, budget: Budget, *, parameters: int) -> tuple[str, ...]:
        """A warning if noise drowns everything there is to learn, with what would have to change; otherwise none.

        Args:
            budget: the plan's budget.
            parameters: d, the number of trained parameters.
        """
        if self.training <= LARGEST_RATIO:
            return ()
        factor, fewer = self.training / LARGEST_RATIO, self.fewer_parameters(parameters, limit=LARGEST_RATIO)
        return (
            f"This plan can hardly learn: {self.describe()}. That follows from {budget.train_size:,} training records, "
            f"an expected batch of {budget.expected_batch_size:,}, ε = {rounded_up(budget.epsilon)}, {budget.steps:,} "
            f"steps and {parameters:,} trained parameters. One of these would have to change: about {factor:.2g} times "
            "as many patients and as large a batch; a larger batch or fewer steps, with less noise for the same ε; a "
            f"larger ε; or at most {fewer:,} trained parameters, with a smaller model or pretrained weights of which "
            "only the head is trained.",
        )


def noise_to_signal(budget: Budget, clipping: Clipping, *, parameters: int) -> NoiseToSignal:
    """The ratios of a plan.

    Args:
        budget: the solved budget.
        clipping: how gradients are clipped; if counts take part of the budget, gradients have more noise.
        parameters: d >= 1, the number of trained parameters.
    """
    noise = clipping.gradient_noise(budget.noise_multiplier)
    step = noise * math.sqrt(parameters) / budget.expected_batch_size
    return NoiseToSignal(step=step, training=step / math.sqrt(max(budget.steps, 1)))
