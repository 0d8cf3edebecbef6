"""Rényi accounting: Mironov's sum for whole orders, dp-accounting, and never under the tight ε."""

import math

import pytest
from scipy import special, stats

from dpmed.privacy.accountant import SampledGaussian, epsilon
from dpmed.privacy.loss.losses import WorstCase
from dpmed.privacy.rdp import rdp_epsilon, rdp_moment


@pytest.mark.parametrize("order", [2, 3, 8, 32])
@pytest.mark.parametrize(("rate", "noise"), [(0.01, 1.0), (0.3, 4.0), (0.9, 0.6), (1.0, 2.0)])
def test_whole_orders_are_mironovs_sum(order, rate, noise):
    terms = [
        math.log(special.comb(order, k))
        + k * math.log(rate)
        + ((order - k) * math.log1p(-rate) if rate < 1 else (0 if k == order else -math.inf))
        + k * (k - 1) / (2 * noise**2)
        for k in range(order + 1)
    ]
    assert rdp_moment(WorstCase(rate, 1 / noise), float(order - 1)) == pytest.approx(
        special.logsumexp(terms), rel=1e-8, abs=1e-12
    )


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "delta"), [(0.1, 1.0, 200, 1e-6), (0.256, 3.0, 300, 8e-7), (0.003, 0.7, 14550, 8e-7)]
)
def test_dp_accounting_with_whole_orders_is_at_most_a_little_larger(rate, noise, steps, delta):
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    other = RdpAccountant(orders=range(2, 128))
    other.compose(dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise)), steps)
    found = rdp_epsilon((SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps),), delta)
    assert 0.93 * other.get_epsilon(delta) <= found <= other.get_epsilon(delta) * (1 + 1e-6)


@pytest.mark.parametrize("noise", [1e-8, 1e-4, 1e-2, 0.05, 0.3, 1.0, 10.0, 100.0])
@pytest.mark.parametrize(("rate", "steps"), [(1.0, 10), (0.25, 300), (0.003, 5000)])
def test_renyi_is_never_under_the_tight_epsilon(rate, steps, noise):
    mechanism = SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps)
    tight = epsilon(mechanism, 1e-6)
    assert epsilon(mechanism, 1e-6, accountant="rdp") >= tight * 0.999


@pytest.mark.parametrize(
    ("size", "batch", "steps", "factor"), [(8012, 2048, 300, 2.6), (106, 1, 53000, 87), (970000, 3328, 14550, 167)]
)
def test_at_large_budgets_every_step_counts_as_if_the_target_took_part(size, batch, steps, factor):
    rate, delta = batch / size, 8e-7
    assert steps / stats.binom.isf(delta, steps, rate) == pytest.approx(factor, rel=0.02)
    mechanism = SampledGaussian(noise_multiplier=1e-5, sampling_rate=rate, steps=steps)
    ratio = epsilon(mechanism, delta, accountant="rdp") / epsilon(mechanism, delta)
    assert ratio == pytest.approx(1.05 * factor, rel=0.03)


def test_divergences_of_different_steps_add_up_as_in_dp_accounting():
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    kinds = [(0.01, 1.0, 200), (0.05, 3.0, 300), (1.0, 60.0, 10), (1.0, 90.0, 5)]
    other = RdpAccountant(orders=[2 + 0.25 * x for x in range(100)])
    mechanisms = []
    for rate, noise, steps in kinds:
        event = dp_accounting.GaussianDpEvent(noise)
        other.compose(event if rate == 1 else dp_accounting.PoissonSampledDpEvent(rate, event), steps)
        mechanisms.append(SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps))
    found = rdp_epsilon(mechanisms, 1e-6)
    # Its orders are a grid; ours are any.
    assert other.get_epsilon(1e-6) * (1 - 1e-3) <= found <= other.get_epsilon(1e-6) * (1 + 1e-9)
