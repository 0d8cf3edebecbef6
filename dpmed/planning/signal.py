"""Noise against the longest that a gradient can be: whether a plan can work, by public facts alone.

A step's mean clipped gradient is at most C long; its noise has a length of about σ C √d / B over d trained numbers.
The mean over T steps keeps a signal that points one way, and 1/√T of the noise. That is the best case; no gradient of
any patient is looked at.

Source: the lengths follow from Abadi et al. (2016), Algorithm 1.
"""

import math
from dataclasses import dataclass

from dpmed.dpsgd.clipping import Clipping
from dpmed.privacy.budget import Budget

# Above it a plan is warned of. Computed for shipped configs: quickstart 0.03, the phantoms' from 0.05 up to 6 (liver,
# volumes one by one); the paper's own of liver is about 15 by hand. Silence does not mean that a plan will learn.
LARGEST_RATIO = 25.0


@dataclass(frozen=True, kw_only=True)
class NoiseToSignal:
    """Lengths of noise over the longest signal.

    Attributes:
        step: of one step, σ √d / B.
        training: of the mean over all T steps, σ √d / (B √T).
    """

    step: float
    training: float

    def describe(self) -> str:
        """What the plan says."""
        return (
            f"a step's noise is {self.step:.3g} times as long as its mean gradient can be at most; in the mean of all "
            f"steps {self.training:.3g} times"
        )

    def fewer_parameters(self, parameters: int, *, limit: float) -> int:
        """How many numbers may be trained for the ratio over all steps to fall to `limit`: it grows as their root."""
        return max(1, int(parameters / (self.training / limit) ** 2))

    def warnings(self, budget: Budget, *, parameters: int) -> tuple[str, ...]:
        """A warning where noise drowns whatever there is to learn, and what would have to change; else none.

        Args:
            budget: of the plan.
            parameters: d, how many numbers are trained.
        """
        if self.training <= LARGEST_RATIO:
            return ()
        factor, fewer = self.training / LARGEST_RATIO, self.fewer_parameters(parameters, limit=LARGEST_RATIO)
        return (
            f"This plan can hardly learn: {self.describe()}. That follows from {budget.train_size:,} training records, "
            f"an expected batch of {budget.expected_batch_size:,}, ε = {budget.epsilon:.3g}, {budget.steps:,} steps "
            f"and {parameters:,} trained parameters. One of these would have to change: about {factor:.2g} times as "
            "many patients and as large a batch; a larger batch or fewer steps, with less noise for the same ε; a "
            f"larger ε; or at most {fewer:,} trained parameters, as by a smaller model or pretrained weights of which "
            "the head alone is trained.",
        )


def noise_to_signal(budget: Budget, clipping: Clipping, *, parameters: int) -> NoiseToSignal:
    """The ratios of a plan.

    Args:
        budget: solved.
        clipping: of its gradients; where counts are paid for, gradients have the more noise.
        parameters: d >= 1, how many numbers are trained.
    """
    noise = clipping.gradient_noise(budget.noise_multiplier)
    step = noise * math.sqrt(parameters) / budget.expected_batch_size
    return NoiseToSignal(step=step, training=step / math.sqrt(max(budget.steps, 1)))
