"""The cost of choosing the best of several trainings whose number is random.

Training K times and releasing only the best model, by a score that is a function of the model and of nothing that ε
protects, spends less than the composition of K trainings, provided that K was drawn from a certain distribution before
anything was seen and is kept secret, as are the other models. Here K is geometric: P(K = k) = (1 - 1/N)^(k - 1) / N.

Trainings may differ in their settings if the list of settings is fixed beforehand and each training draws its own
uniformly, independently of all others: drawing settings and training with them is then one mechanism, whose Rényi
divergence at each order is at most the largest of its settings', since e^((α - 1) D_α) is jointly convex.

Sources: Liu & Talwar (2019), "Private selection from private candidates"; Papernot & Steinke (2022), "Hyperparameter
tuning with Rényi differential privacy", Theorem 2 (η = 1) and section 3 on drawing settings; the convexity is van Erven
& Harremoës (2014), Theorem 13.
"""

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float

from dpmed.privacy.loss.losses import WorstCase
from dpmed.privacy.mechanism import Mechanisms, SampledGaussian
from dpmed.privacy.rdp import rdp_moment
from dpmed.privacy.several import composed_epsilon

_ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024)
_FEWEST = 2


@dataclass(frozen=True, kw_only=True)
class SelectionCost:
    """ε of choosing the best of about N trainings, computed in two ways.

    Attributes:
        by_selection: for a geometric number of trainings with mean N, of which only the best is released; None if it
            overflows.
        by_composition: for exactly N trainings, all of which may be released.
        drawn: whether the number was drawn; None as long as either may be done, and the cheaper will be.
    """

    by_selection: float | None
    by_composition: float
    drawn: bool | None = None

    @property
    def is_random(self) -> bool:
        """Whether the number is random: as it was drawn, otherwise if that costs less."""
        if self.drawn is not None:
            return self.drawn
        return self.by_selection is not None and self.by_selection < self.by_composition

    @property
    def distribution(self) -> Literal["geometric", "fixed"]:
        """The distribution of the number of trainings."""
        return "geometric" if self.is_random else "fixed"

    @property
    def epsilon(self) -> float:
        """What is spent: ε of the way that was taken, whichever of the two is smaller."""
        if not self.is_random:
            return self.by_composition
        return math.inf if self.by_selection is None else self.by_selection


@lru_cache(maxsize=256)
def tuning_cost(trainings: Mechanisms, *, delta: float) -> SelectionCost:
    """The cost of choosing the best of N settings: each used once, or a random number of uniform draws, N on average.

    Args:
        trainings: one training, with all its steps, for each of N >= 2 settings; a list fixed beforehand.
        delta: δ in (0, 1).
    """
    mean = len(trainings)
    if mean < _FEWEST:
        raise ValueError(f"Expected {mean=} >= {_FEWEST}.")
    single = max(composed_epsilon((training,), delta) for training in set(trainings))
    return SelectionCost(
        by_selection=_by_selection(trainings, delta, least=single), by_composition=composed_epsilon(trainings, delta)
    )


def draw_trials(mean: int) -> int:
    """A geometric number of trials, K >= 1 with mean `mean`, exactly, from the operating system's entropy."""
    system = random.SystemRandom()
    trials = 1
    while system.randrange(mean) != 0:
        trials += 1
    return trials


def _by_selection(trainings: Mechanisms, delta: float, *, least: float) -> float | None:
    orders, mean = np.asarray(_ORDERS, np.float64), len(trainings)
    with np.errstate(all="ignore"):
        divergences = np.max([_divergences(training) for training in set(trainings)], axis=0)
        # The theorem uses the divergence at two orders: the one in question, and whichever costs least.
        once = 2 * np.min((1 - 1 / orders) * divergences + math.log(mean) / orders)
        chosen = divergences + math.log(mean) / (orders - 1) + once
        converted = chosen + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    found = float(np.min(converted))
    # Choosing never costs less than one training, although rounding could make it appear to.
    return found if math.isfinite(found) and found >= least else None


def _divergences(training: SampledGaussian) -> Float[np.ndarray, " order"]:
    """Rényi divergence of a whole training at each order."""
    step = WorstCase(training.sampling_rate, 1 / training.noise_multiplier)
    try:
        return np.array([training.steps * rdp_moment(step, order - 1.0) / (order - 1) for order in _ORDERS])
    except (OverflowError, ValueError, MemoryError):
        return np.full(len(_ORDERS), np.inf)
