"""The cost of choosing the best of several trainings whose number is random.

Who trains K times and gives out only the best model, by a score that is a function of the model and of nothing that ε
protects, spends less than the composition of K trainings, provided that K was drawn from a certain distribution before
anything was seen, and stays secret like the other models. Here K is geometric: P(K = k) = (1 - 1/N)^(k - 1) / N.

Sources: Liu & Talwar (2019), "Private selection from private candidates"; Papernot & Steinke (2022), "Hyperparameter
tuning with Rényi differential privacy", Theorem 2, as implemented by dp-accounting.
"""

import math
import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.several import composed_epsilon

# Of whole orders alone: for those in between, dp-accounting's series may not converge.
_ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024)
_GEOMETRIC = 1.0
_FEWEST = 2


@dataclass(frozen=True, kw_only=True)
class SelectionCost:
    """ε of choosing the best of about N trainings, in two ways.

    Attributes:
        by_selection: of a geometric number of trainings with mean N, of which the best alone is given out; None where
            dp-accounting cannot compute it.
        by_composition: of exactly N trainings, all of which may be given out.
    """

    by_selection: float | None
    by_composition: float

    @property
    def is_random(self) -> bool:
        """Whether the random number costs less."""
        return self.by_selection is not None and self.by_selection < self.by_composition

    @property
    def epsilon(self) -> float:
        """The smaller of both."""
        return self.by_selection if self.by_selection is not None and self.is_random else self.by_composition


@lru_cache(maxsize=256)
def selection_cost(training: SampledGaussian, *, mean: int, delta: float) -> SelectionCost:
    """What choosing the best of about `mean` trainings costs.

    Args:
        training: one of them, with all its steps.
        mean: N >= 2.
        delta: δ in (0, 1).
    """
    if mean < _FEWEST:
        raise ValueError(f"Expected {mean=} >= {_FEWEST}.")
    plain = SampledGaussian(
        noise_multiplier=training.noise_multiplier,
        sampling_rate=training.sampling_rate,
        steps=mean * training.steps,
    )
    return SelectionCost(
        by_selection=_by_selection(training, mean, delta), by_composition=composed_epsilon((plain,), delta)
    )


def draw_trials(mean: int) -> int:
    """A geometric number of trials, K >= 1 with mean `mean`, exactly, from the operating system's entropy."""
    system = random.SystemRandom()
    trials = 1
    while system.randrange(mean) != 0:
        trials += 1
    return trials


def _by_selection(training: SampledGaussian, mean: int, delta: float) -> float | None:
    from dp_accounting import dp_event, rdp

    step: dp_event.DpEvent = dp_event.GaussianDpEvent(training.noise_multiplier)
    if training.sampling_rate < 1:
        step = dp_event.PoissonSampledDpEvent(training.sampling_rate, step)
    every = dp_event.SelfComposedDpEvent(step, training.steps)
    accountant = rdp.RdpAccountant(orders=list(_ORDERS))
    try:
        with np.errstate(all="ignore"):
            accountant.compose(dp_event.RepeatAndSelectDpEvent(every, mean, _GEOMETRIC))
            found = float(accountant.get_epsilon(delta))
    except (OverflowError, ValueError, FloatingPointError, ZeroDivisionError):
        return None
    # At extreme noise the library's sums overflow, and it answers 0: choosing never costs less than one training.
    single = composed_epsilon((training,), delta)
    return found if math.isfinite(found) and found >= single else None
