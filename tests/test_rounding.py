"""Numbers that promise something are never shown better than they are."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmed.rounding import (
    is_vacuous,
    measured,
    odds,
    percent_at_most,
    rounded_down,
    rounded_up,
    stated_budget,
    stated_delta,
)


@given(st.floats(1e-300, 1e300), st.integers(2, 6))
def test_a_limit_is_rounded_to_the_safe_side_by_less_than_its_last_digit(value, digits):
    last = 1.001 * 10.0 ** (1 - digits) * value
    up, down = float(rounded_up(value, digits)), float(rounded_down(value, digits))
    assert value - last <= down <= value <= up <= value + last
    # What has so few digits is stated as it is.
    assert float(rounded_up(up, digits)) == up and float(rounded_down(down, digits)) == down
    assert (rounded_up(0.0), rounded_down(math.inf)) == ("0", "inf")


@pytest.mark.parametrize(
    ("bound", "shown"),
    [(0.0624, "6.3 %"), (0.00124, "0.13 %"), (2e-5, "0.002 %"), (0.5231, "52.4 %"), (0.9981, "99.9 %"), (1.0, "100 %")],
)
def test_a_bound_is_never_shown_smaller_than_it_is(bound, shown):
    assert percent_at_most(bound) == shown and float(shown.removesuffix(" %")) >= 100 * bound
    assert is_vacuous(bound) == (bound > 0.999)


def test_a_chance_is_given_as_people_say_it():
    assert odds(1 / 1294) == "1 in 1,294" and odds(0.5) == "1 in 2" and odds(0.4) == "40 %"


@pytest.mark.parametrize("typed", ["1e-05", "8e-07", "1.25e-06", "0.001", "1e-300"])
def test_delta_is_shown_as_typed(typed):
    assert stated_delta(float(typed)) == typed


def test_delta_of_many_digits_is_never_shown_smaller_than_it_is():
    assert stated_delta(1.2345671e-6) == "1.23457e-06"
    assert stated_delta(1.2345649e-6) == "1.23457e-06" and f"{1.2345649e-6:g}" == "1.23456e-06"
    assert stated_budget(7.99951, 1.2345649e-6) == "ε = 8 at δ = 1.23457e-06"


def test_what_is_unknown_is_not_shown_as_a_number():
    assert (measured(None), measured(0.0), measured(12.34567)) == ("–", "0", "12.35")
