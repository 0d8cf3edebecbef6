"""Participation revealed: the plain Gaussian exactly, an explicit sum, and above the tight ε everywhere."""

import math

import numpy as np
import pytest
from scipy import optimize, special, stats

from dpmed.privacy.loss.pld import pld_epsilon
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.revealed import _participations, _rounded_up, gaussian_log_delta, revealed_epsilon


def revealed_of(rate, noise, steps, delta):
    return revealed_epsilon((SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps),), delta)


def gaussian_delta(epsilon, shift):
    """Balle & Wang (2018), Theorem 8, as it stands."""
    return stats.norm.cdf(shift / 2 - epsilon / shift) - math.exp(epsilon) * stats.norm.cdf(
        -shift / 2 - epsilon / shift
    )


@pytest.mark.parametrize(("epsilon", "shift"), [(0.5, 0.3), (1.0, 1.0), (5.0, 2.0), (20.0, 6.0)])
def test_delta_is_balle_and_wangs(epsilon, shift):
    found = math.exp(float(gaussian_log_delta(epsilon, np.asarray([shift]))[0]))
    assert found == pytest.approx(gaussian_delta(epsilon, shift), rel=1e-9)


@pytest.mark.parametrize(("noise", "steps", "delta"), [(1.0, 1, 1e-5), (10.0, 100, 1e-6), (50.0, 7, 1e-9)])
def test_rate_one_is_the_gaussian_mechanism(noise, steps, delta):
    shift = math.sqrt(steps) / noise
    truth = optimize.brentq(lambda e: gaussian_delta(e, shift) - delta, 0, 60, xtol=1e-13)
    found = revealed_of(1.0, noise, steps, delta)
    assert found == pytest.approx(truth, rel=1e-7)


@pytest.mark.parametrize(("steps", "rate"), [(1, 0.5), (1000, 0.3), (10**6, 1e-3), (10**7, 0.9)])
def test_participations_are_binomial(steps, rate):
    counts, log_weights = _participations(steps, rate)
    # Both take large logarithms of factorials from each other.
    rounding = 1e-15 * (1 + special.gammaln(steps + 1))
    np.testing.assert_allclose(log_weights, stats.binom.logpmf(counts, steps, rate), rtol=1e-12, atol=rounding)
    assert np.exp(log_weights).sum() == pytest.approx(1.0, abs=1e-7)


def test_few_steps_are_the_sum_over_participations():
    rate, noise, steps, delta = 0.3, 0.5, 4, 1e-4

    def total(epsilon):
        return sum(
            stats.binom.pmf(k, steps, rate) * gaussian_delta(epsilon, math.sqrt(k) / noise) for k in range(1, steps + 1)
        )

    truth = optimize.brentq(lambda e: total(e) - delta, 1, 60, xtol=1e-12)
    assert revealed_of(rate, noise, steps, delta) == pytest.approx(truth)


@pytest.mark.parametrize("noise", [0.005, 0.02, 0.09, 0.3, 1.0, 5.0])
def test_telling_the_adversary_more_never_helps(noise):
    mechanisms = (SampledGaussian(noise_multiplier=noise, sampling_rate=0.1, steps=50),)
    assert revealed_epsilon(mechanisms, 1e-6) >= pld_epsilon(mechanisms, 1e-6) * (1 - 5e-4)


@pytest.mark.parametrize("noise", [1e-3, 1e-6, 1e-9])
def test_at_tiny_noise_epsilon_is_the_loss_of_the_delta_quantile_of_participations(noise):
    steps, rate, delta = 300, 2048 / 8012, 8e-7
    most = stats.binom.isf(delta, steps, rate)
    found = revealed_of(rate, noise, steps, delta)
    assert found * 2 * noise**2 == pytest.approx(most, rel=0.02)


def test_squared_shifts_of_several_kinds_add_up():
    first, second, delta = (0.3, 0.5, 4), (0.6, 0.8, 3), 1e-4

    def total(epsilon):
        return sum(
            stats.binom.pmf(k, first[2], first[0])
            * stats.binom.pmf(m, second[2], second[0])
            * gaussian_delta(epsilon, math.sqrt(k / first[1] ** 2 + m / second[1] ** 2))
            for k in range(first[2] + 1)
            for m in range(second[2] + 1)
            if k + m
        )

    truth = optimize.brentq(lambda e: total(e) - delta, 1, 60, xtol=1e-12)
    kinds = [SampledGaussian(noise_multiplier=n, sampling_rate=q, steps=t) for q, n, t in (first, second)]
    assert revealed_epsilon(kinds, delta) == pytest.approx(truth, rel=1e-7)


def test_neighbours_are_taken_together_upwards():
    rng = np.random.default_rng(3)
    squares, weights = rng.exponential(size=5000), rng.dirichlet(np.ones(5000))
    fewer, log_weights = _rounded_up(squares, np.log(weights), most=100)
    assert len(fewer) <= 100
    assert np.exp(log_weights).sum() == pytest.approx(1)
    for threshold in rng.exponential(size=50):
        assert np.exp(log_weights[fewer >= threshold]).sum() >= weights[squares >= threshold].sum() * (1 - 1e-12)
    assert float(np.exp(log_weights) @ fewer) <= float(weights @ squares) + np.ptp(squares) / 100
