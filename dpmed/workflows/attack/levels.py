"""Levels of noise at which an attack is carried out: from what the user wrote to ε and σ."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dpmed.errors import InputError
from dpmed.files import write_csv
from dpmed.planning.plan import Plan
from dpmed.privacy.accountant import AccountantName, SampledGaussian, calibrate_noise, epsilon
from dpmed.reconstructions.manifest import Level, level_name

NOISE = "noise_multipliers.csv"
NOISE_COLUMNS = ("level", "epsilon", "epsilon_pld", "epsilon_rdp", "noise_multiplier")
_SMALLEST_EXPONENT, _LARGEST_EXPONENT = -3, 20
_MOST_LEVELS = 100


def parse_levels(text: str | None, *, non_private: bool) -> tuple[float | None, ...]:
    """Levels from `FIRST:LAST:STEP`, a single number or a comma list: powers of ten, and None for no privacy.

    LAST is included when it is hit.

    Args:
        text: exponents; None for none.
        non_private: whether the level without privacy follows.

    Raises:
        InputError: the text is malformed, or an exponent stands there twice or is out of range.
    """
    exponents = [] if text is None else _exponents(text.strip())
    if len(set(exponents)) < len(exponents):
        raise InputError(f"{text!r} holds an exponent twice", where="--eps-exp")
    if not all(_SMALLEST_EXPONENT <= exponent <= _LARGEST_EXPONENT for exponent in exponents):
        problem = f"{text!r} holds an exponent that is not from {_SMALLEST_EXPONENT} to {_LARGEST_EXPONENT}"
        raise InputError(problem, where="--eps-exp")
    return (*(10.0**exponent for exponent in exponents), *([None] if non_private else []))


def _exponents(text: str) -> list[int]:
    problem = InputError(
        f"{text!r} is not FIRST:LAST:STEP, a whole number or a comma list of them",
        where="--eps-exp",
        remedy="6:18:2 means ε = 10^6, 10^8, … 10^18.",
    )
    try:
        if ":" not in text:
            return [int(part) for part in text.split(",")]
        first, last, *steps = (int(part) for part in text.split(":"))
    except ValueError as error:
        raise problem from error
    step = steps[0] if steps else 1
    if len(steps) > 1 or step <= 0 or last < first or (last - first) // step >= _MOST_LEVELS:
        raise problem
    return list(range(first, last + 1, step))


def make_level(
    plan: Plan,
    value: float | None,
    *,
    accountant: AccountantName | None,
    steps: Literal["one", "all"],
    counts: tuple[int, ...],
) -> Level:
    """A level of the plan's own mechanism.

    Args:
        plan: gives sampling rate, δ and steps.
        value: ε; None for no privacy.
        accountant: which ε is meant; None for the config's.
        steps: whether σ is that of the whole training or of a single step.
        counts: images recovered from each batch.
    """
    name, budget = level_name(value), plan.budget
    if value is None or budget is None:
        return Level(
            name=name,
            folder=name,
            epsilon=None,
            epsilon_pld=None,
            epsilon_rdp=None,
            noise_multiplier=0.0,
            counts=counts,
        )
    number = 1 if steps == "one" else plan.steps
    noise = calibrate_noise(
        epsilon=value,
        delta=budget.delta,
        sampling_rate=budget.sampling_rate,
        steps=number,
        accountant=accountant or budget.accountant,
    )
    mechanism = SampledGaussian(noise_multiplier=noise, sampling_rate=budget.sampling_rate, steps=number)
    return Level(
        name=name,
        folder=name,
        epsilon=value,
        epsilon_pld=epsilon(mechanism, budget.delta),
        epsilon_rdp=epsilon(mechanism, budget.delta, accountant="rdp"),
        noise_multiplier=noise,
        counts=counts,
    )


def write_noise(folder: Path, levels: Sequence[Level]) -> None:
    """Write `noise_multipliers.csv`."""
    rows = [{"level": level.name, **{name: getattr(level, name) for name in NOISE_COLUMNS[1:]}} for level in levels]
    write_csv(folder / NOISE, rows, NOISE_COLUMNS)
