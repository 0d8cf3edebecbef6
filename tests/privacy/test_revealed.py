"""Participation revealed: the plain Gaussian exactly, an explicit sum, and above the tight ε everywhere."""

import math
from itertools import product

import mpmath
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
    counts, log_weights = _participations(steps, rate, 95.0)
    # SciPy takes large logarithms of factorials from each other.
    rounding = 1e-15 * (1 + special.gammaln(steps + 1))
    np.testing.assert_allclose(log_weights, stats.binom.logpmf(counts, steps, rate), rtol=1e-12, atol=rounding)
    assert np.exp(log_weights).sum() == pytest.approx(1.0, abs=1e-7)


@pytest.mark.parametrize(("steps", "rate"), [(40, 0.3), (427, 3.7e-10), (10**6, 1e-3), (4 * 10**9, 1e-9), (10**9, 0.5)])
@pytest.mark.parametrize("tail", [95.0, 1520.0])
def test_their_chances_are_not_lost_in_rounding(steps, rate, tail):
    counts, log_weights = _participations(steps, rate, tail)
    for place in {0, 1, len(counts) // 2, len(counts) - 1}:
        with mpmath.workdps(50):
            count, q = int(counts[place]), mpmath.mpf(rate)
            choices = mpmath.loggamma(steps + 1) - mpmath.loggamma(count + 1) - mpmath.loggamma(steps - count + 1)
            truth = choices + count * mpmath.log(q) + (steps - count) * mpmath.log1p(-q)
            above = float(mpmath.mpf(float(log_weights[place])) - truth)
        assert -1e-12 <= above <= 1e-12 + 2e-15 * abs(count - steps * rate)


def exact_excess(kinds, epsilon, delta):
    """δ(ε) / δ - 1, by the sum over all participations with 60 digits."""

    def gaussian(square):
        shift = mpmath.sqrt(square)
        place = epsilon / shift - shift / 2
        lower = mpmath.exp(epsilon) * mpmath.ncdf(-place - shift) if place > -60 else 0
        return mpmath.ncdf(-place) - lower

    with mpmath.workdps(60):
        chances, epsilon = {mpmath.mpf(0): mpmath.mpf(1)}, mpmath.mpf(epsilon)
        for rate, noise, steps in kinds:
            q, square = mpmath.mpf(rate), 1 / mpmath.mpf(noise) ** 2
            own = {k * square: mpmath.binomial(steps, k) * q**k * (1 - q) ** (steps - k) for k in range(steps + 1)}
            chances = {a + b: p * r for (a, p), (b, r) in product(chances.items(), own.items())}
        total = sum(chance * gaussian(square) for square, chance in chances.items() if square > 0)
        return float(total / mpmath.mpf(delta) - 1)


@pytest.mark.parametrize(
    ("kinds", "delta"),
    [
        ([(0.01, 1e-3, 100)], 1e-12),
        ([(0.01, 1e-3, 100)], 1e-45),
        ([(0.01, 1e-3, 100)], 1e-100),
        ([(0.1, 1e-3, 200)], 1e-60),
        ([(0.25, 0.05, 300)], 1e-200),
        ([(0.25, 1.0, 300)], 5e-324),
        ([(0.5, 0.3, 4), (0.8, 0.6, 3)], 1e-100),
        ([(0.01, 0.01, 40), (0.3, 0.02, 20)], 1e-320),
    ],
)
def test_never_below_the_exact_sum_however_small_delta_is(kinds, delta):
    mechanisms = [SampledGaussian(noise_multiplier=n, sampling_rate=q, steps=t) for q, n, t in kinds]
    found = revealed_epsilon(mechanisms, delta)
    assert exact_excess(kinds, found, delta) <= 0
    assert exact_excess(kinds, found * (1 - 2e-9 if len(kinds) == 1 else 1 - 1e-3), delta) > 0


@pytest.mark.parametrize("share", [1.0, 1 - 1e-15, 1 + 1e-13])
@pytest.mark.parametrize(("rate", "noise"), [(1e-3, 0.01), (0.01, 1e-3), (0.5, 2e-3)])
def test_never_below_the_exact_sum_where_delta_is_a_chance_of_participation(rate, noise, share):
    # δ(ε) is flat between the losses of one and of two participations: ε depends on the last digits of δ.
    delta = rate**2 * share
    found = revealed_of(rate, noise, 2, delta)
    assert exact_excess([(rate, noise, 2)], found, delta) <= 0


@pytest.mark.parametrize("noise", [1e-6, 1e-8, 1e-10])
def test_never_below_the_exact_sum_at_the_smallest_noise(noise):
    kinds, delta = [(0.3, noise, 30)], 1e-13
    found = revealed_of(0.3, noise, 30, delta)
    assert exact_excess(kinds, found, delta) <= 0


@pytest.mark.parametrize(("noise", "delta"), [(1e5, 3.9889960109999995e-06), (1e8, 3e-9), (1e8, 3.988996011e-09)])
def test_never_below_the_exact_sum_at_the_largest_noise(noise, delta):
    found = revealed_of(1.0, noise, 1, delta)
    assert exact_excess([(1.0, noise, 1)], found, delta) <= 0


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
