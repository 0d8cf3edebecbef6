"""dp-accounting as an oracle of every plan: it agrees within its own discretisation, and notices what does not."""

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from dpmed.errors import InputError
from dpmed.privacy import budget as budget_room
from dpmed.privacy.accountant import SampledGaussian, epsilon
from dpmed.privacy.budget import BudgetRequest, solve_budget
from dpmed.privacy.calibrated import assess_noise
from dpmed.privacy.second_opinion import second_opinion

# The paper's settings: N, expected batch size, steps, δ.
SETTINGS = {
    "ham10000": (8012, 2048, 300, 8e-7),
    "radimagenet": (970_000, 3328, 14_550, 8e-7),
    "cifar10": (45_000, 4096, 2000, 1e-5),
    "msd": (106, 1, 53_000, 8e-7),
}


def both(noise, rate, steps, delta):
    ours = epsilon(SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps), delta)
    return ours, second_opinion(noise_multiplier=noise, sampling_rate=rate, steps=steps, delta=delta)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("noise", [30.0, 3.0, 0.7])
def test_it_agrees_on_the_papers_settings(name, noise):
    train_size, batch, steps, delta = SETTINGS[name]
    ours, opinion = both(noise, batch / train_size, steps, delta)
    assert opinion is not None
    assert not opinion.contradicts(ours)
    # An upper bound, too: ours is not far above it either.
    assert ours <= opinion.coarse * 1.002 + 1e-6


@settings(max_examples=20, deadline=None)
@given(
    st.floats(math.log(0.4), math.log(50)),
    st.floats(math.log(1e-3), 0.0),
    st.integers(1, 3000),
    st.sampled_from([1e-8, 1e-6, 1e-5, 1e-3]),
)
def test_it_never_contradicts_a_right_epsilon_and_always_one_that_is_5_percent_too_small(
    log_noise, log_rate, steps, delta
):
    ours, opinion = both(math.exp(log_noise), math.exp(log_rate), steps, delta)
    assume(opinion is not None and ours > 1e-3)
    assert not opinion.contradicts(ours)
    # Where dp-accounting's grid is too coarse to tell, it says so by what halving it changes.
    if opinion.coarse - opinion.epsilon < 0.01 * opinion.epsilon:
        assert opinion.contradicts(0.95 * ours)


@pytest.mark.parametrize("steps", [1074, 1057])
def test_there_is_none_where_its_exponentials_overflow(steps):
    # Every record in every step: the Gaussian mechanism with μ = √T / σ, whose ε is known.
    ours = epsilon(SampledGaussian(noise_multiplier=1.0, sampling_rate=1.0, steps=steps), 1e-8)
    mu = math.sqrt(steps)
    found = norm.cdf(mu / 2 - ours / mu) - math.exp(ours - 300) * math.exp(300 + norm.logcdf(-mu / 2 - ours / mu))
    assert found == pytest.approx(1e-8, rel=1e-4)
    assert second_opinion(noise_multiplier=1.0, sampling_rate=1.0, steps=steps, delta=1e-8) is None


@pytest.mark.parametrize("noise", [1e-4, 1e-9])
def test_beyond_its_reach_there_is_no_opinion(noise):
    assert second_opinion(noise_multiplier=noise, sampling_rate=0.1, steps=100, delta=1e-6) is None


def test_nothing_is_trained_on_an_epsilon_that_is_in_doubt(monkeypatch):
    request = BudgetRequest(
        train_size=1000, expected_batch_size=100, delta=1e-5, clipping_norm=1.0, epsilon=2.0, epochs=9
    )
    solve_budget(request).require_agreement()

    def too_small(*arguments, **keys):
        found = assess_noise(*arguments, **keys)
        return replace(found, epsilon_pld=0.95 * found.epsilon_pld)

    monkeypatch.setattr(budget_room, "assess_noise", too_small)
    with pytest.raises(InputError, match=r"below the .* of dp-accounting.*in doubt"):
        solve_budget(request).require_agreement()
