"""ε computed again by Google's dp-accounting, an independent check of our own accountant.

Its privacy-loss distributions bound ε from above as ours do, on a grid of their own. At the package's default grid,
large budgets take minutes and gigabytes; a grid that fits the composed loss answers in a fraction of a second. Outside
its range (noise so small, or ε so large, that its exponentials overflow) there is no second opinion.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# Grid cells per standard deviation of the composed loss.
_CELLS = 4000
# Below this noise multiplier dp-accounting's exponentials overflow.
_SMALLEST_NOISE = 2e-3
# e^ε must not overflow: at σ = 1, q = 1, T = 1074, δ = 1e-8 dp-accounting gives 720.93, while the closed form of the
# Gaussian mechanism gives 719.9933, and would contradict a correct ε.
_LARGEST_EPSILON = 700.0
# Cells allowed for one step and for all steps together: under 1 GB and about three seconds.
_MOST_CELLS = 2e6
# dp-accounting drops a tail of this mass on either side of the composed loss.
_TAIL = 1e-15
_FINEST, _COARSEST = 1e-7, 1e-1
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class SecondOpinion:
    """ε by dp-accounting, an upper bound like ours.

    Attributes:
        epsilon: on the finer of two grids.
        coarse: on a grid with twice that spacing.
    """

    epsilon: float
    coarse: float

    def contradicts(self, epsilon: float) -> bool:
        """Whether `epsilon` is lower by more than dp-accounting's own discretisation error explains.

        The error of a grid falls with the square of its spacing, so a third of the change from halving it remains;
        twice that change plus one part in a thousand are allowed.
        """
        explained = 2 * max(self.coarse - self.epsilon, 0.0) + _TOLERANCE * self.epsilon
        return epsilon < self.epsilon - explained


@lru_cache(maxsize=256)
def second_opinion(*, noise_multiplier: float, sampling_rate: float, steps: int, delta: float) -> SecondOpinion | None:
    """ε of T Poisson-subsampled Gaussian steps by dp-accounting's PLD accountant; None outside its range.

    Args:
        noise_multiplier: σ > 0.
        sampling_rate: q in (0, 1].
        steps: T >= 0.
        delta: δ in (0, 1).

    Source: Doroshenko et al. (2022), as implemented by dp-accounting; adjacency is add-or-remove-one.
    """
    if steps == 0:
        return SecondOpinion(0.0, 0.0)
    interval = _interval(noise_multiplier, sampling_rate, steps)
    if interval is None:
        return None
    coarse, fine = (
        _epsilon(noise_multiplier, sampling_rate, steps, delta, interval=width) for width in (2 * interval, interval)
    )
    return None if coarse is None or fine is None else SecondOpinion(epsilon=fine, coarse=coarse)


def _interval(noise: float, rate: float, steps: int) -> float | None:
    """The width of a grid cell; None if no grid is both small and fine enough."""
    if noise < _SMALLEST_NOISE:
        return None
    shift = 1.0 / noise
    # Standard deviation of one step's loss for x ~ N(0, 1), from both parts of the mixture.
    spread = math.sqrt(rate * (1 - rate) * (0.5 * shift**2) ** 2 + rate * shift**2)
    if shift < 1:
        spread = rate * math.sqrt(math.expm1(shift**2))
    composed = spread * math.sqrt(steps)
    interval = min(max(composed / _CELLS, _FINEST), _COARSEST * max(1.0, composed))
    # The range of one step's losses and that of their sum.
    single = 10 * shift + shift**2
    most = 20 * composed + steps * rate * shift**2
    return interval if max(single, min(most, steps * single)) / interval < _MOST_CELLS else None


def _epsilon(noise: float, rate: float, steps: int, delta: float, *, interval: float) -> float | None:
    from dp_accounting.pld import privacy_loss_distribution

    try:
        single = privacy_loss_distribution.from_gaussian_mechanism(
            standard_deviation=noise,
            sampling_prob=rate,
            value_discretization_interval=interval,
            pessimistic_estimate=True,
        )
        composed = single if steps == 1 else single.self_compose(steps, tail_mass_truncation=_TAIL)
        with np.errstate(over="ignore"):
            found = float(composed.get_epsilon_for_delta(delta))
    except (OverflowError, ValueError, MemoryError, FloatingPointError, ZeroDivisionError):
        return None
    return found if found <= _LARGEST_EPSILON else None
