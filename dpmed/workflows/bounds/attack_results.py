"""`dpmed bounds --attack-results`: what the prior-aware attack measured, plotted under the bounds it must obey."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from dpmed.attacks.prior_aware.results_table import read_results
from dpmed.errors import InputError
from dpmed.progress import Progress
from dpmed.workflows.bounds.settings import GivenOptions, Row

_SAME = 1e-5


def adopt(path: Path | None, given: GivenOptions, progress: Progress) -> tuple[GivenOptions, tuple[Row, ...]]:
    """The attack's results, and the options, with the attack's prior if they give none.

    The attack's prior is one over its number of candidates, which the user need not type again.

    Args:
        path: a `prior_aware.csv`; None for none.
        given: the options.
        progress: reports the prior.

    Raises:
        InputError: as `read_results`.
    """
    if path is None:
        return given, ()
    rows = tuple(
        {name: value for name, value in asdict(result).items() if value is not None} for result in read_results(path)
    )
    if given.prior is None:
        given = replace(given, prior=rows[0]["prior"])
        progress.say(f"The prior is taken from the attack's results: κ = {given.prior:.4g}.")
    return given, rows


def check_same_training(rows: Sequence[Row], *, sampling_rate: float, steps: int, prior: float) -> None:
    """Refuse results that were measured at other settings than those of the bounds.

    Raises:
        InputError: names what differs.
    """
    asked = {"sampling_rate": sampling_rate, "steps": steps, "prior": prior}
    for row in rows[:1]:
        for name, value in asked.items():
            if not math.isclose(row[name], value, rel_tol=_SAME):
                raise InputError(
                    f"the attack was measured at {name} = {row[name]:.6g}, but the bounds are for {value:.6g}, so they "
                    "cannot be compared",
                    where="attack_results",
                    remedy="Give the config that was attacked, or the train size, batch size, steps and prior of its "
                    "table.",
                )
