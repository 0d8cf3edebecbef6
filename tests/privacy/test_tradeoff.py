"""The trade-off curve: closed forms, Monte Carlo, and the order that adversaries, steps and noise impose."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.tradeoff import Composition, loudest_step_power


def made(adversary, noise, rate, steps):
    return Composition.of([SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps)], adversary)


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


def kinds(*several):
    return [SampledGaussian(noise_multiplier=n, sampling_rate=q, steps=t) for n, q, t in several]


def test_full_batches_of_different_noise_are_the_gaussian_tradeoff():
    composition = Composition.of(kinds((3.0, 1.0, 9), (4.0, 1.0, 8)), "worst-case")
    truth = stats.norm.cdf(stats.norm.ppf(1e-3) + math.sqrt(1.5))
    assert composition.power(1e-3).upper == pytest.approx(truth, rel=1e-9)
    assert composition.advantage() == pytest.approx(2 * stats.norm.cdf(math.sqrt(1.5) / 2) - 1, rel=1e-9)


@pytest.mark.parametrize("adversary", ["worst-case", "relaxed"])
@pytest.mark.parametrize("fpr", [1e-4, 0.05])
def test_two_runs_that_hardly_differ_are_one_of_all_steps(adversary, fpr):
    both = Composition.of(kinds((2.0, 0.2, 40), (2.0 * (1 + 1e-8), 0.2, 60)), adversary)
    one = made(adversary, 2.0, 0.2, 100)
    assert both.power(fpr).upper == pytest.approx(one.power(fpr).upper, rel=1e-6)
    assert both.power(fpr).lower == pytest.approx(one.power(fpr).lower, rel=1e-6)
    assert both.advantage() == pytest.approx(one.advantage(), rel=1e-6)
    assert Composition.of(kinds((2.0, 0.2, 40), (2.0, 0.2, 60)), adversary) == one


@pytest.mark.parametrize("loud", [1e-9, 1e-4, 0.02])
@pytest.mark.parametrize("fpr", [1e-5, 1e-2])
def test_a_step_that_shows_who_took_part_beside_one_with_noise(loud, fpr):
    # Either the first step shows it, or the second is tested alone.
    rate, noise, other = 0.1, 1.5, 0.3
    alone = (1 - other) * fpr + other * stats.norm.sf(stats.norm.isf(fpr) - 1 / noise)
    truth = rate + (1 - rate) * alone
    composition = Composition.of(kinds((loud, rate, 1), (noise, other, 1)), "worst-case")
    power = composition.power(fpr)
    assert power.lower * (1 - 1e-7) <= truth <= power.upper * (1 + 1e-9)
    assert power.upper <= truth * 1.002
    rates = stats.norm.sf(np.linspace(-6, 6, 4001))
    alone = (1 - other) * rates + other * stats.norm.sf(stats.norm.isf(rates) - 1 / noise)
    advantage = float((rate + (1 - rate) * alone - rates).max())
    assert advantage * (1 - 1e-7) <= composition.advantage() <= advantage * 1.001


@pytest.mark.parametrize("adversary", ["worst-case", "relaxed"])
def test_monte_carlo_agrees_on_different_steps_together(adversary):
    several, fpr, runs = ((1.0, 0.2, 8), (2.5, 0.5, 12), (6.0, 1.0, 5)), 0.03, 200_000
    rng = np.random.default_rng(8)
    sums = np.zeros((2, runs))
    for noise, rate, steps in several:
        shift = 1 / noise
        for _ in range(steps):
            signs = 1.0 if adversary == "worst-case" else rng.choice([-1.0, 1.0], runs)
            seen = rng.normal(size=(2, runs))
            seen[1] += signs * shift * (rng.random(runs) < rate)
            tilted = np.exp(shift * seen) if adversary == "worst-case" else np.cosh(shift * seen)
            sums += np.log(1 - rate + rate * math.exp(-(shift**2) / 2) * tilted)
    without, with_ = sums
    found = (with_ > np.quantile(without, 1 - fpr)).mean()
    error = 5 * math.sqrt(found / runs) + 5 * found / fpr * math.sqrt(fpr / runs)
    power = Composition.of(kinds(*several), adversary).power(fpr)
    assert power.lower - error <= found <= power.upper + error
    assert power.upper - power.lower <= 2e-3 * power.upper


@given(
    several=st.lists(
        st.tuples(
            st.floats(-9, 3).map(lambda e: 10.0**e), st.sampled_from([1e-4, 0.02, 0.5, 1.0]), st.integers(1, 300)
        ),
        min_size=2,
        max_size=3,
    ),
    fpr=st.sampled_from([1e-5, 1e-3, 0.2]),
)
@example(several=[(66.74435835341211, 1e-4, 109), (1.0, 1e-4, 1), (0.0002488911010340256, 0.02, 61)], fpr=1e-5)
@example(several=[(100.0, 1e-4, 48), (0.01, 0.02, 35)], fpr=1e-5)
@example(several=[(100.0, 1e-4, 48), (0.01, 0.02, 1)], fpr=1e-5)
@settings(max_examples=3, deadline=None)
def test_together_never_less_is_seen_than_in_each(several, fpr):
    worst, relaxed = (Composition.of(kinds(*several), name) for name in ("worst-case", "relaxed"))
    upper, upper_of_relaxed = worst.upper_power(fpr), relaxed.upper_power(fpr)
    # Sums of masses are right to about ten digits.
    assert fpr <= relaxed.power(fpr).lower <= upper * (1 + 1e-9) and upper <= 1
    for one in several:
        assert made("worst-case", *one).power(fpr).lower <= upper * (1 + 1e-9)
        assert made("relaxed", *one).power(fpr).lower <= upper_of_relaxed * (1 + 1e-9)
    # The upper value is loose where kinds of very different noise meet, and never below what a real test reaches.
    assert worst.advantage() >= worst.power(fpr).lower - fpr - 1e-9


@given(
    noise=st.floats(0.3, 30),
    rate=st.floats(0.01, 0.9),
    steps=st.integers(1, 200),
    fpr=st.sampled_from([1e-5, 1e-3, 0.05, 0.4]),
)
@settings(max_examples=8, deadline=None)
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
