"""Measures the noise of a training: the sharpest test of a mechanism whose form is assumed to be as claimed.

Guesses about m canaries can never show an ε of more than about log m, however faulty the training. But the auditor of
gradient canaries sees the noise itself: canaries that were left out show nothing else, and those that were included
also show the step that a canary makes, with probability equal to the sampling rate. The ratio of noise to step is the
noise multiplier.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.several import composed_epsilon

_FEWEST = 3
# Noise beyond this many times the claimed one shows no ε.
_MOST_NOISE = 1e3
_LEAST_NOISE = 1e-3


@dataclass(frozen=True, kw_only=True)
class MeasuredNoise:
    """What the noisy gradients of canaries say about the noise.

    Attributes:
        deviation: standard deviation of the noise within a canary over the steps, in units of a canary's reach.
        deviation_upper: its upper confidence limit.
        step: how far a canary moves its parameter when it takes part, in the same units; 1 if clipped as claimed.
        step_lower: its lower confidence limit, at least 0.
    """

    deviation: float
    deviation_upper: float
    step: float
    step_lower: float

    @property
    def noise_multiplier_upper(self) -> float:
        """Upper limit of σ; infinite if no step was detected with certainty."""
        return self.deviation_upper / self.step_lower if self.step_lower > 0 else math.inf


def measure_noise(
    seen: Float[np.ndarray, "step canary"], included: Bool[np.ndarray, " canary"], *, sampling_rate: float, level: float
) -> MeasuredNoise | None:
    """Limits of the noise and of a canary's step that hold jointly with probability at least 1 - `level`.

    The noise is claimed to be normal, so the sum of squares around each canary's own mean follows a χ² distribution;
    noise that is the same in every step makes it vanish. The limit of the step is the larger of two, both from
    Student's t over the included canaries: from their means, and from their additional variance, q (1 - q) times the
    square of the step, which is visible even if noise is repeated.

    Args:
        seen: noisy gradients divided by a canary's reach.
        included: which canaries were included.
        sampling_rate: q.
        level: permitted probability of error.

    Returns:
        The limits; None if there are too few canaries on either side, or only one step.
    """
    steps, inside = len(seen), int(included.sum())
    outside = len(included) - inside
    if steps < 2 or min(inside, outside) < _FEWEST:  # noqa: PLR2004 no variation within one
        return None
    quiet = seen[:, ~included]
    freedom = outside * (steps - 1)
    squares = float(np.sum((quiet - quiet.mean(axis=0)) ** 2))
    means = seen[:, included].mean(axis=0) / sampling_rate
    quantile = float(stats.t.ppf(1 - level / 3, min(inside, outside) - 1))
    margin = quantile * float(means.std(ddof=1)) / math.sqrt(inside)
    loud, still = (np.var(seen[:, chosen], axis=0, ddof=1) for chosen in (included, ~included))
    more = float(loud.mean() - still.mean())
    more -= quantile * math.hypot(
        float(loud.std(ddof=1)) / math.sqrt(inside), float(still.std(ddof=1)) / math.sqrt(outside)
    )
    by_variation = math.sqrt(max(more, 0.0) / (sampling_rate * (1 - sampling_rate))) if sampling_rate < 1 else 0.0
    return MeasuredNoise(
        deviation=math.sqrt(squares / freedom),
        deviation_upper=math.sqrt(squares / float(stats.chi2.ppf(level / 3, freedom))),
        step=float(means.mean()),
        step_lower=max(by_variation, float(means.mean()) - margin),
    )


def epsilon_by_noise(claimed: SampledGaussian, measured: MeasuredNoise, delta: float) -> float:
    """A lower limit of ε at δ: that of the claimed sampling and steps at the upper limit of the measured noise."""
    noise = measured.noise_multiplier_upper
    if noise > _MOST_NOISE * claimed.noise_multiplier:
        return 0.0
    # Without any noise there is no ε: take the smallest noise that can be told from none.
    found = replace(claimed, noise_multiplier=max(noise, _LEAST_NOISE))
    return composed_epsilon((found,), delta)
