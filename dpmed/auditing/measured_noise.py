"""The noise of a training, measured: the sharpest test of a mechanism whose form is taken as claimed.

Guesses about m canaries can never show more than an ε of about log m, however faulty the training. But the auditor of
gradient canaries has seen the noise itself: at the canaries that were left out there is nothing else, and at those that
were in, the step that one of them makes, with the sampling rate as its chance. The one over the other is the noise
multiplier.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

_FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class MeasuredNoise:
    """What the noisy gradients of canaries say of the noise.

    Attributes:
        deviation: standard deviation of the noise in units of a canary's reach, within a canary over the steps.
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
        """σ at most; infinite where no step was seen for sure."""
        return self.deviation_upper / self.step_lower if self.step_lower > 0 else math.inf


def measure_noise(
    seen: Float[np.ndarray, "step canary"], included: Bool[np.ndarray, " canary"], *, sampling_rate: float, level: float
) -> MeasuredNoise | None:
    """Limits of the noise and of a canary's step, that hold together with a chance of at least 1 - `level`.

    The noise is normal by the claim, so that the sum of squares around each canary's own mean is distributed as χ²:
    noise that is the same in every step leaves nothing of it. The step's limit is the larger of two, both Student's,
    over the canaries that were in: by their means, and by how much more they vary, q (1 - q) times the step's square,
    which is seen however noise is repeated.

    Args:
        seen: noisy gradients over a canary's reach.
        included: which were in.
        sampling_rate: q.
        level: what may go wrong.

    Returns:
        None where there are too few canaries on a side, or only one step.
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
