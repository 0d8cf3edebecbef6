"""Batch and steps: published trainings are reproduced, the noise has levelled off, and the budget is the plan's own."""

import math

import pytest

from dpmed.planning.advice.sizes import advised_sizes, advised_steps, sizes_of, with_sizes
from dpmed.privacy.budget import BudgetRequest, solve_budget


def request(size, epsilon=8.0, delta=1e-5, **other):
    return BudgetRequest(
        train_size=size, expected_batch_size=1, delta=delta, clipping_norm=1.0, epsilon=epsilon, **other
    )


def test_the_steps_of_the_published_trainings_come_out():
    assert advised_steps(50_000, 1.0) == 725
    assert advised_steps(1_281_167, 8.0) == pytest.approx(71_589, abs=1)
    assert advised_steps(30, 8.0) == 100


def test_imagenets_batch_and_noise_are_near_the_published_ones():
    found = advised_sizes(request(1_281_167, delta=8e-7))
    assert found.batch_size == 16_384
    assert found.budget.noise_multiplier == pytest.approx(2.5, rel=0.1)


@pytest.mark.parametrize(("size", "epsilon"), [(1294, 8.0), (100, 8.0), (600, 1.0)])
def test_noise_is_within_a_tenth_of_that_of_full_batches_and_half_the_batch_is_not(size, epsilon):
    found = advised_sizes(request(size, epsilon))
    full = sizes_of(request(size, epsilon), batch_size=size, steps=found.budget.steps)
    half = sizes_of(request(size, epsilon), batch_size=found.batch_size // 2, steps=found.budget.steps)
    assert found.noise <= 1.1 * full.noise * 1.001 < half.noise * 1.05
    assert found.batch_size < size
    assert found.noise == pytest.approx(
        found.budget.noise_multiplier / found.batch_size / math.sqrt(found.budget.steps)
    )


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_smallest_cohorts_have_an_answer(size):
    found = advised_sizes(request(size))
    assert 1 <= found.batch_size <= size and found.budget.steps >= 90


def test_the_budget_is_what_the_same_config_gets():
    found = with_sizes(request(500), batch_size=64, epochs=9)
    again = solve_budget(
        BudgetRequest(train_size=500, expected_batch_size=64, delta=1e-5, clipping_norm=1.0, epsilon=8.0, epochs=9)
    )
    assert found.budget == again and found.budget.epsilon <= 8.0 * (1 + 1e-9)


def test_a_risk_may_be_held_in_the_place_of_epsilon():
    found = advised_sizes(request(400, None, max_reconstruction_risk=0.05, adversary="worst-case"))
    assert found.budget.steps >= 90 and found.budget.noise_multiplier > 0
