"""Numbers for people to read; those that promise something are rounded to the safe side."""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

# From here on a bound is given with three digits, below it with two.
_LARGE = 0.1
# As many as `{:g}` prints, so that δ of a config is shown as it was typed.
_DELTA_DIGITS = 6


def rounded_up(value: float, digits: int = 4) -> str:
    """The smallest number of so many digits that is not below the value: for "at most", which must never promise more.

    The smallest noise that meets a limit is rounded up too.
    """
    return _rounded(value, digits, ROUND_CEILING)


def rounded_down(value: float, digits: int = 4) -> str:
    """The largest number of so many digits that is not above the value: for "at least", which must never claim more.

    The largest ε that meets a limit is rounded down too.
    """
    return _rounded(value, digits, ROUND_FLOOR)


def stated_delta(delta: float) -> str:
    """δ as it was typed; beyond six digits, rounded up."""
    return rounded_up(delta, _DELTA_DIGITS)


def stated_budget(epsilon: float, delta: float) -> str:
    """ε and the δ at which it holds, neither below what it is."""
    return f"ε = {rounded_up(epsilon)} at δ = {stated_delta(delta)}"


def measured(value: float | None) -> str:
    """A measured number, to the nearest of four digits; a dash if it is unknown."""
    return "–" if value is None else f"{value:.4g}"


def percent(share: float) -> str:
    """A measured share as a percentage, to the nearest tenth."""
    return f"{100 * share:.1f} %"


def percent_interval(low: float, high: float) -> str:
    """The interval of a measured share, as percentages."""
    return f"{percent(low)} to {percent(high)}"


def percent_at_most(bound: float) -> str:
    """A bound on a chance as a percentage that is not below it."""
    digits = 3 if bound >= _LARGE else 2
    return f"{100 * float(rounded_up(bound, digits)):.{digits}g} %"


def is_vacuous(bound: float) -> bool:
    """Whether a bound on a chance would be shown as 100 %: it rules nothing out."""
    return percent_at_most(bound) == percent_at_most(1.0)


def odds(prior: float) -> str:
    """A chance of guessing: `1 in 1,294`, or a percentage."""
    whole = round(1 / prior)
    return f"1 in {whole:,}" if math.isclose(prior * whole, 1, rel_tol=1e-3) else f"{100 * prior:.3g} %"


def _rounded(value: float, digits: int, rounding: str) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    written = Decimal(repr(value))
    step = Decimal(1).scaleb(written.adjusted() + 1 - digits)
    return f"{float(written.quantize(step, rounding=rounding)):.{digits}g}"
