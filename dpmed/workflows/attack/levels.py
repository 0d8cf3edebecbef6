"""The noise levels of an attack: from the user's input to ε and σ."""

import math
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from dpmed.attacks.base import AttackSettings
from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.planning.plan import Plan
from dpmed.privacy.accountant import AccountantName
from dpmed.privacy.calibrated import calibrate
from dpmed.reconstructions.manifest import Level, level_name

_SMALLEST_EXPONENT, _LARGEST_EXPONENT = -3, 20
_MOST_LEVELS = 100

Epsilons = tuple[float | None, ...]


def choose_epsilons(
    attack: AttackSettings,
    config: Config,
    *,
    epsilons: Sequence[float] = (),
    exponents: str | None = None,
    non_private: bool | None = None,
) -> Epsilons:
    """The levels of an attack: those that the user asked for, or its defaults; None stands for no privacy.

    Args:
        attack: the attack.
        config: the config of the training; if it has no privacy, nor has any default level.
        epsilons: values of ε.
        exponents: powers of ten, see `parse_exponents`; added after the values.
        non_private: whether to add the level without privacy; None adds it if the attack has one.

    Raises:
        InputError: a level is malformed, out of range or given twice, or the attack has no level without privacy.
    """
    if non_private is not None and not attack.also_non_private:
        problem = f"is not used by the attack {attack.attack}, which needs noise"
        raise InputError(problem, where="non_private", remedy="Leave it out.")
    asked = (*epsilons, *parse_exponents(exponents))
    if not asked and config.privacy is not None:
        asked = attack.default_epsilons
    with_none = attack.also_non_private and non_private is not False
    return (*asked, None) if with_none else asked


def check_epsilons(epsilons: Epsilons) -> None:
    """Refuse meaningless levels.

    Raises:
        InputError: there is no level, one is given twice, or an ε is not above 0.
    """
    if not epsilons:
        raise InputError("no level is given", where="epsilons")
    for value in epsilons:
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"ε = {value:g} is not above 0", where="epsilons")
    names = [level_name(value) for value in epsilons]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"the level {name} is given twice", where="epsilons")


def parse_exponents(text: str | None) -> tuple[float, ...]:
    """Powers of ten from `FIRST:LAST:STEP`, a number or a list with commas; LAST is included if a step reaches it.

    Args:
        text: exponents, decimals allowed; None for none.

    Raises:
        InputError: the text is malformed, or an exponent is repeated or out of range.
    """
    # Decimals, so that 0:1:0.1 reaches its end exactly.
    exponents = [] if text is None else _exponents(text.strip())
    if len(set(exponents)) < len(exponents):
        raise InputError(f"{text!r} contains an exponent twice", where="exponents")
    return tuple(10.0 ** (int(value) if value == int(value) else float(value)) for value in exponents)


def _exponents(text: str) -> list[Decimal]:
    problem = InputError(
        f"{text!r} is not FIRST:LAST:STEP, a number or a list of numbers separated by commas",
        where="exponents",
        remedy="6:18:2 means ε = 10^6, 10^8, … 10^18.",
    )
    try:
        first, *others = [Decimal(part) for part in text.split(":" if ":" in text else ",")]
    except InvalidOperation as error:
        raise problem from error
    if not all(value.is_finite() for value in (first, *others)):
        raise problem
    if ":" not in text:
        return _in_range([first, *others], text)
    last, step = others[0], others[1] if len(others) > 1 else Decimal(1)
    _in_range([first, last], text)
    if len(others) > 2 or step <= 0 or last < first or last - first >= _MOST_LEVELS * step:  # noqa: PLR2004
        raise problem
    return [first + step * number for number in range(int((last - first) // step) + 1)]


def _in_range(exponents: list[Decimal], text: str) -> list[Decimal]:
    if not all(_SMALLEST_EXPONENT <= exponent <= _LARGEST_EXPONENT for exponent in exponents):
        problem = f"{text!r} contains an exponent outside {_SMALLEST_EXPONENT} to {_LARGEST_EXPONENT}"
        raise InputError(problem, where="exponents")
    return exponents


def make_level(plan: Plan, value: float | None, *, steps: int, accountant: AccountantName | None) -> Level:
    """A level of the plan's mechanism.

    Args:
        plan: gives the sampling rate and δ.
        value: ε; None for no privacy.
        steps: the number of steps that the noise is meant for.
        accountant: the accountant that ε refers to; None for the config's.
    """
    name, budget = level_name(value), plan.budget
    if value is None or budget is None:
        return Level(name=name, folder=name, epsilon=None, epsilon_pld=None, epsilon_rdp=None, noise_multiplier=0.0)
    noise = calibrate(
        value,
        delta=budget.delta,
        sampling_rate=budget.sampling_rate,
        steps=steps,
        accountant=accountant or budget.accountant,
    )
    return Level(name=name, folder=name, epsilon=value, **vars(noise))
