"""For which noise risk is bounded: single budgets, a sweep over ε, or the noise of a run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dpmed.errors import InputError

Spacing = Literal["log", "linear"]


@dataclass(frozen=True, kw_only=True)
class AskedBudgets:
    """What the user asked for; with nothing but `count` and `spacing`, the run's own noise or else a sweep.

    Attributes:
        epsilons: single budgets ε.
        noise_multipliers: single noise multipliers σ.
        lowest: the smallest ε of a sweep; None if not given.
        highest: the largest ε of a sweep; None if not given.
        count: the number of budgets in a sweep.
        spacing: how these are spaced.
        max_risk: R, whose inverse is asked for; None for no inverse.
    """

    epsilons: tuple[float, ...] = ()
    noise_multipliers: tuple[float, ...] = ()
    lowest: float | None = None
    highest: float | None = None
    count: int = 50
    spacing: Spacing = "log"
    max_risk: float | None = None

    @property
    def names_ends(self) -> bool:
        """Whether a sweep was asked for by its ends."""
        return self.lowest is not None or self.highest is not None

    @property
    def names_noise(self) -> bool:
        """Whether single budgets or noise multipliers were asked for."""
        return bool(self.epsilons or self.noise_multipliers)


def choose(facts: Mapping[str, Any], asked: AskedBudgets) -> dict[str, Any]:
    """The facts about a training, completed by the budgets for which its risk is bounded.

    Args:
        facts: of a config, of a run with its noise, or of several runs with their steps.
        asked: what the user asked for.

    Returns:
        Settings for `BoundsSettings`.

    Raises:
        InputError: a sweep and single values are both asked for, or the sweep's range is empty.
    """
    found = dict(facts)
    noise = found.pop("noise_multipliers", ())
    if asked.names_noise or asked.names_ends or asked.max_risk is not None:
        # What is known of the runs does not hold at another noise.
        noise, found["notes"] = asked.noise_multipliers, ()
    if asked.names_ends and asked.names_noise:
        raise InputError("a sweep cannot be combined with single values", where="eps_min, eps_max")
    has_noise = bool(asked.epsilons or noise or asked.max_risk is not None or "mechanisms" in found)
    return {
        **found,
        "epsilons": swept(asked) if asked.names_ends or not has_noise else asked.epsilons,
        "noise_multipliers": noise,
        "max_risk": asked.max_risk,
        "log_axis": asked.spacing == "log",
    }


def swept(asked: AskedBudgets) -> tuple[float, ...]:
    """The budgets of a sweep, from 1 to 10^6 unless its ends are given, both included.

    Raises:
        InputError: the range is empty or not above 0.
    """
    low = 1.0 if asked.lowest is None else asked.lowest
    high = 1e6 if asked.highest is None else asked.highest
    if not 0 < low < math.inf or not 0 < high < math.inf:
        raise InputError(f"the range {low:g} to {high:g} is not above 0", where="eps_min, eps_max")
    if low > high:
        raise InputError(f"{low:g} is above {high:g}", where="eps_min, eps_max")
    if asked.count < 1:
        raise InputError(f"{asked.count} is not at least 1", where="num")
    if asked.count == 1:
        return (low,)
    space = np.geomspace if asked.spacing == "log" else np.linspace
    return (low, *(float(value) for value in space(low, high, asked.count)[1:-1]), high)
