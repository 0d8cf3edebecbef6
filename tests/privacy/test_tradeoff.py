"""The trade-off curve: closed forms, Monte Carlo, and the order that adversaries, steps and noise impose."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dpmed.privacy.tradeoff import Composition, loudest_step_power


def made(adversary, noise, rate, steps):
    return Composition(adversary=adversary, noise_multiplier=noise, sampling_rate=rate, steps=steps)


@pytest.mark.parametrize(("noise", "steps", "fpr"), [(1.0, 1, 1e-3), (10.0, 300, 1e-4), (3.0, 7, 0.2)])
def test_rate_one_is_the_gaussian_tradeoff(noise, steps, fpr):
    truth = stats.norm.cdf(stats.norm.ppf(fpr) + math.sqrt(steps) / noise)
    power = made("worst-case", noise, 1.0, steps).power(fpr)
    assert power.upper == power.lower == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("noise", [1e-9, 1e-4, 0.05, 0.1, 0.5, 2.0, 30.0])
@pytest.mark.parametrize("rate", [1e-3, 0.1, 0.9])
@pytest.mark.parametrize("fpr", [1e-6, 1e-3, 0.1])
def test_one_step_has_the_closed_form(noise, rate, fpr):
    place = stats.norm.isf(fpr)
    truth = (1 - rate) * fpr + rate * stats.norm.sf(place - 1 / noise)
    power = made("worst-case", noise, rate, 1).power(fpr)
    assert power.lower * (1 - 1e-7) <= truth <= power.upper * (1 + 1e-9)
    assert power.upper <= truth * 1.005
    # The relaxed adversary sees the size only.
    place = stats.norm.isf(fpr / 2)
    truth = (1 - rate) * fpr + rate * (stats.norm.sf(place - 1 / noise) + stats.norm.sf(place + 1 / noise))
    power = made("relaxed", noise, rate, 1).power(fpr)
    assert power.lower * (1 - 1e-7) <= truth <= power.upper * (1 + 1e-9)
    assert power.upper <= truth * 1.005


@pytest.mark.parametrize("adversary", ["worst-case", "relaxed"])
@pytest.mark.parametrize(
    ("noise", "rate", "steps", "fpr"), [(1.0, 0.2, 20, 0.05), (2.5, 0.5, 60, 0.02), (0.6, 0.05, 30, 0.01)]
)
def test_monte_carlo_agrees(adversary, noise, rate, steps, fpr):
    # 200,000 sums under each hypothesis; five standard errors of TPR and of the threshold's FPR, carried over.
    runs, shift = 200_000, 1 / noise
    rng = np.random.default_rng(7)

    def ratio(x):
        if adversary == "worst-case":
            return np.log(1 - rate + rate * np.exp(shift * x - shift**2 / 2))
        return np.log(1 - rate + rate * np.exp(-(shift**2) / 2) * np.cosh(shift * x))

    without, with_ = np.zeros(runs), np.zeros(runs)
    for _ in range(steps):
        without += ratio(rng.normal(size=runs))
        signs = 1.0 if adversary == "worst-case" else rng.choice([-1.0, 1.0], runs)
        with_ += ratio(rng.normal(size=runs) + signs * shift * (rng.random(runs) < rate))
    found = (with_ > np.quantile(without, 1 - fpr)).mean()
    error = 5 * math.sqrt(found / runs) + 5 * found / fpr * math.sqrt(fpr / runs)
    power = made(adversary, noise, rate, steps).power(fpr)
    assert power.lower - error <= found <= power.upper + error


@given(
    noise=st.floats(0.3, 30),
    rate=st.floats(0.01, 0.9),
    steps=st.integers(1, 200),
    fpr=st.sampled_from([1e-5, 1e-3, 0.05, 0.4]),
)
@settings(max_examples=15, deadline=None)
def test_bounds_are_in_order(noise, rate, steps, fpr):
    slack = 1 + 3e-4
    worst, relaxed = (made(name, noise, rate, steps).power(fpr) for name in ("worst-case", "relaxed"))
    for power in (worst, relaxed):
        assert fpr <= power.lower <= power.upper <= 1
        assert power.upper - power.lower <= 5e-3 * power.upper
    assert relaxed.lower <= worst.upper
    assert relaxed.upper <= worst.upper * slack
    assert worst.upper <= made("worst-case", noise, rate, steps + 10).power(fpr).upper * slack
    assert worst.upper <= made("worst-case", 0.8 * noise, rate, steps).power(fpr).upper * slack
    assert worst.upper <= made("worst-case", noise, min(1.0, 1.1 * rate), steps).power(fpr).upper * slack
    assert worst.upper <= made("worst-case", noise, rate, steps).power(min(2 * fpr, 0.9)).upper * slack


@pytest.mark.parametrize("adversary", ["worst-case", "relaxed"])
@pytest.mark.parametrize(("rate", "steps"), [(0.1, 1), (0.01, 5), (0.25, 300), (1e-3, 20)])
@pytest.mark.parametrize("noise", [1e-9, 1e-5, 1e-2, 0.05, 0.2])
def test_no_simple_test_beats_the_upper_bound_and_tiny_noise_saturates(adversary, rate, steps, noise):
    composition = made(adversary, noise, rate, steps)
    for fpr in (1e-4, 1e-2):
        power = composition.power(fpr)
        assert power.upper >= loudest_step_power(composition, fpr) * (1 - 1e-9)
        assert composition.upper_power(fpr) == power.upper
        ceiling = composition.participation + (1 - composition.participation) * fpr
        assert power.upper <= ceiling * (1 + 1e-12)
        if noise <= 1e-2:
            assert power.upper == pytest.approx(ceiling, rel=1e-4)


@pytest.mark.parametrize(("noise", "rate"), [(0.1, 0.01), (1.0, 0.3), (5.0, 0.9)])
def test_the_advantage_of_one_step_is_the_total_variation(noise, rate):
    truth = rate * (2 * stats.norm.cdf(0.5 / noise) - 1)
    found = made("worst-case", noise, rate, 1).advantage()
    assert truth * (1 - 1e-9) <= found <= truth * 1.001 + 2e-7


def test_an_impossible_rate_is_refused():
    with pytest.raises(ValueError, match="fpr"):
        made("worst-case", 1.0, 0.1, 1).power(0.0)
