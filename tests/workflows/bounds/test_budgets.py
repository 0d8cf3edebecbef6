"""What was asked for, and what a run knows of its own noise, become the budgets that are bounded."""

import math

import pytest

from dpmed.errors import InputError
from dpmed.workflows.bounds.budgets import AskedBudgets, choose, swept


def test_budgets_are_spaced_and_both_ends_are_exact():
    five = swept(AskedBudgets(lowest=0.1, highest=1000.0, count=5))
    assert five == pytest.approx((0.1, 1, 10, 100, 1000))
    assert swept(AskedBudgets(lowest=1.0, highest=2.0, count=3, spacing="linear")) == (1, 1.5, 2)
    for count in (2, 7):
        found = swept(AskedBudgets(lowest=0.3, highest=1e18, count=count))
        assert len(found) == count and (found[0], found[-1]) == (0.3, 1e18)
    assert swept(AskedBudgets(lowest=4.0, count=1)) == (4,)
    assert swept(AskedBudgets(count=2)) == (1, 1e6)
    for low, high, count in ((0.0, 1.0, 2), (2.0, 1.0, 2), (1.0, math.inf, 2), (1.0, 2.0, 0)):
        with pytest.raises(InputError):
            swept(AskedBudgets(lowest=low, highest=high, count=count))


RUN = {"steps": 3, "noise_multipliers": (2.0,), "notes": ("one of two",)}


@pytest.mark.parametrize(
    ("asked", "epsilons", "noise", "notes"),
    [
        ({}, (), (2.0,), ("one of two",)),
        ({"epsilons": (8.0,)}, (8.0,), (), ()),
        ({"noise_multipliers": (4.0,)}, (), (4.0,), ()),
        ({"epsilons": (8.0,), "noise_multipliers": (4.0,)}, (8.0,), (4.0,), ()),
        ({"highest": 100.0}, (1, 10, 100), (), ()),
        ({"max_risk": 0.05}, (), (), ()),
        ({"max_risk": 0.05, "lowest": 1e4}, (1e4, 1e5, 1e6), (), ()),
    ],
)
def test_what_is_known_of_a_run_holds_only_at_its_own_noise(asked, epsilons, noise, notes):
    found = choose(RUN, AskedBudgets(**asked, count=3))
    assert found["epsilons"] == pytest.approx(epsilons)
    assert (found["noise_multipliers"], found["notes"]) == (noise, notes)
    assert (found["steps"], found["max_risk"], found["log_axis"]) == (3, asked.get("max_risk"), True)


def test_without_a_run_there_is_a_sweep_and_several_runs_have_their_own_steps():
    found = choose({"steps": 3}, AskedBudgets(count=2, spacing="linear"))
    assert (found["epsilons"], found["noise_multipliers"], found["log_axis"]) == ((1, 1e6), (), False)
    assert choose({"mechanisms": ("one", "other")}, AskedBudgets())["epsilons"] == ()


@pytest.mark.parametrize("single", [{"epsilons": (8.0,)}, {"noise_multipliers": (4.0,)}])
def test_a_sweep_and_single_values_are_not_mixed(single):
    with pytest.raises(InputError, match="eps_min, eps_max: a sweep cannot be combined"):
        choose(RUN, AskedBudgets(lowest=1.0, **single))
