"""An unknown sign that stays the same: closed forms, exact integration of two steps, Monte Carlo of many."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dpmed.privacy.constant_sign import _both_signs, _split, constant_sign_upper
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.tradeoff import Composition


def made(adversary, noise, rate, steps):
    return Composition.of([SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps)], adversary)


def closed_form(fpr, shift):
    place = stats.norm.ppf(fpr / 2)
    return stats.norm.cdf(place + shift) + stats.norm.cdf(place - shift)


@pytest.mark.parametrize("noise", [1.0, 5.0, 10.0, 100.0])
@pytest.mark.parametrize("fpr", [1 / 8012, 0.1])
def test_with_full_batches_it_is_the_test_of_the_sums_size(noise, fpr):
    truth = closed_form(fpr, math.sqrt(300) / noise)
    assert constant_sign_upper(made("relaxed", noise, 1.0, 300), fpr) == pytest.approx(truth, rel=1e-9)
    # The bound for q < 1 holds here too, and is not far off: 10 % where next to nothing is seen, else 1 %.
    bound = _split(made("worst-case", noise, 1.0, 300), fpr)
    assert truth * (1 - 1e-9) <= bound <= truth * (1.01 if noise <= 10 else 1.3)


def test_the_number_that_the_assumption_hides():
    relaxed = made("relaxed", 10.0, 1.0, 300)
    assert relaxed.upper_power(1 / 8012) == pytest.approx(0.00021, abs=5e-6)
    assert constant_sign_upper(relaxed, 1 / 8012) == pytest.approx(0.0177, abs=5e-5)


def likelihoods(x, noise, rate):
    """Of Q₊ and Q₋ against P."""
    shift = 1 / noise
    return tuple(1 - rate + rate * np.exp(sign * shift * x - shift**2 / 2) for sign in (1, -1))


@pytest.mark.parametrize(("noise", "rate"), [(0.4, 0.3), (1.0, 0.05), (1.0, 0.6), (3.0, 0.9)])
@pytest.mark.parametrize("fpr", [1e-4, 1e-2, 0.2])
def test_two_steps_are_never_underestimated(noise, rate, fpr):
    # The best test of two steps, by the likelihood ratio on a fine grid of what is seen.
    x = np.linspace(-9.0, 9.0 + 1 / noise, 1501)
    density = stats.norm.pdf(x) * (x[1] - x[0])
    plus, minus = likelihoods(x, noise, rate)
    ratio = 0.5 * (np.outer(plus, plus) + np.outer(minus, minus)).ravel()
    under_p = np.outer(density, density).ravel()
    order = np.argsort(-ratio)
    alarms = np.cumsum(under_p[order])
    found = np.cumsum((under_p * ratio)[order])
    truth = float(np.interp(fpr, alarms, found))
    bound = constant_sign_upper(made("relaxed", noise, rate, 2), fpr)
    worst = made("worst-case", noise, rate, 2).upper_power(fpr)
    assert truth * (1 - 1e-3) <= bound <= worst
    assert made("relaxed", noise, rate, 2).power(fpr).lower <= truth * (1 + 1e-3)


@pytest.mark.parametrize(
    ("several", "fpr", "loosest"),
    [
        (((3.0, 0.256, 300),), 1e-3, 1.02),
        (((2.5, 0.5, 60),), 0.02, 1.02),
        (((1.0, 0.2, 20),), 0.05, 1.2),
        (((3.0, 0.3, 100), (4.0, 1.0, 5), (1.5, 0.1, 50)), 1e-2, 1.03),
    ],
)
def test_monte_carlo_of_many_steps_is_bounded_and_nearly_met(several, fpr, loosest):
    runs = 200_000
    rng = np.random.default_rng(11)

    def log_ratios(*, taking_part):
        sums = np.zeros((2, runs))
        for noise, rate, steps in several:
            for _ in range(steps):
                x = rng.normal(size=runs)
                if taking_part:
                    x += (rng.random(runs) < rate) / noise
                sums += np.log(likelihoods(x, noise, rate))
        return np.logaddexp(*sums)

    # Q₋ is the mirror image of Q₊, and the test's statistic has no sign.
    found = (log_ratios(taking_part=True) > np.quantile(log_ratios(taking_part=False), 1 - fpr)).mean()
    error = 5 * math.sqrt(found / runs) + 5 * found / fpr * math.sqrt(fpr / runs)
    kinds = [SampledGaussian(noise_multiplier=n, sampling_rate=q, steps=t) for n, q, t in several]
    bound = constant_sign_upper(Composition.of(kinds, "relaxed"), fpr)
    assert found - error <= bound <= found * loosest + error


@pytest.mark.parametrize(("noise", "rate"), [(0.5, 0.3), (2.0, 0.05), (3.0, 0.9), (2.0, 1.0)])
def test_the_product_of_both_likelihoods_is_a_relaxed_likelihood(noise, rate):
    # log Z is that of the mean of L₊L₋ under P.
    x = np.linspace(-12, 12, 4001)
    plus, minus = likelihoods(x, noise, rate)
    _, log_total = _both_signs(made("worst-case", noise, rate, 7), 0.1)
    mean = np.trapezoid(stats.norm.pdf(x) * plus * minus, x)
    assert log_total == pytest.approx(7 * math.log(mean), rel=1e-9)


@given(
    noise=st.floats(-9, 3).map(lambda exponent: 10.0**exponent),
    rate=st.one_of(st.floats(-5, 0).map(lambda exponent: 10.0**exponent), st.just(1.0)),
    steps=st.integers(1, 2000),
    fpr=st.sampled_from([1e-6, 1e-3, 0.3]),
)
@settings(max_examples=20, deadline=None)
def test_it_lies_between_the_relaxed_and_the_worst_case(noise, rate, steps, fpr):
    bound = constant_sign_upper(made("relaxed", noise, rate, steps), fpr)
    assert made("relaxed", noise, rate, steps).power(fpr).lower <= bound * (1 + 1e-9)
    assert fpr <= bound <= made("worst-case", noise, rate, steps).upper_power(fpr) * (1 + 1e-9)


def test_a_single_step_leaves_no_sign_to_stay_the_same():
    relaxed = made("relaxed", 0.7, 0.4, 1)
    assert constant_sign_upper(relaxed, 1e-3) == relaxed.upper_power(1e-3)


def test_an_impossible_rate_is_refused():
    with pytest.raises(ValueError, match="fpr"):
        constant_sign_upper(made("relaxed", 1.0, 0.1, 1), 1.0)
