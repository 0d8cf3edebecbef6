"""Budgets: three directions, risk in the place of ε, and refusals."""

import pytest

from dpmed.errors import InputError
from dpmed.privacy.accountant import SampledGaussian, epsilon
from dpmed.privacy.budget import BudgetRequest, solve_budget

COMMON = {"train_size": 1294, "expected_batch_size": 512, "delta": 1e-5, "clipping_norm": 0.5}


def test_epsilon_and_epochs_give_noise():
    budget = solve_budget(BudgetRequest(**COMMON, epsilon=8.0, epochs=75))
    assert budget.steps == 150
    assert 8 * 0.999 <= budget.epsilon_pld == budget.epsilon <= 8
    assert budget.epsilon_rdp > 8


def test_noise_and_epochs_give_epsilon():
    budget = solve_budget(BudgetRequest(**COMMON, noise_multiplier=3.0, epochs=75, accountant="rdp"))
    mechanism = SampledGaussian(noise_multiplier=3.0, sampling_rate=512 / 1294, steps=150)
    assert budget.epsilon == epsilon(mechanism, 1e-5, accountant="rdp")


def test_epsilon_and_noise_give_epochs_and_one_more_would_be_too_many():
    budget = solve_budget(BudgetRequest(**COMMON, epsilon=8.0, noise_multiplier=3.0))
    assert budget.epsilon <= 8
    assert budget.steps % 2 == 0
    assert budget.spent(budget.steps + 2).epsilon > 8


def test_a_risk_takes_the_place_of_epsilon():
    risk = {"max_reconstruction_risk": 0.05, "epochs": 75}
    worst = solve_budget(BudgetRequest(**COMMON, **risk, adversary="worst-case"))
    relaxed = solve_budget(BudgetRequest(**COMMON, **risk, adversary="relaxed"))
    assert relaxed.noise_multiplier < worst.noise_multiplier


def test_spending_grows_from_zero_to_the_budget():
    budget = solve_budget(BudgetRequest(**COMMON, epsilon=8.0, epochs=75))
    spent = [budget.spent(steps).epsilon for steps in (0, 1, 10, 100, 150)]
    assert spent[0] == 0
    assert spent == sorted(spent)
    assert spent[-1] == budget.epsilon


@pytest.mark.parametrize(
    "request_",
    [
        {"epsilon": 8.0},
        {"noise_multiplier": 1.0},
        {"epsilon": 0.001, "noise_multiplier": 1.0},
        {"epsilon": float("inf"), "epochs": 3},
    ],
)
def test_what_cannot_be_met_is_refused(request_):
    with pytest.raises(InputError):
        solve_budget(BudgetRequest(**COMMON, **request_))


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(InputError, match="batch"):
        solve_budget(BudgetRequest(**{**COMMON, "train_size": 100}, epsilon=1.0, epochs=1))
