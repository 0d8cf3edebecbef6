"""The tight ε: closed forms, reference values, another library; never under the truth, within 0.1 % of it."""

import math

import pytest
from scipy import optimize, stats

from dpmed.privacy.pld import pld_epsilon
from tests.privacy.reference import IDS, ROWS


def one_step_epsilon(rate, noise, delta):
    """ε of a single step in closed form; the direction that removes the target is the larger here."""
    shift = 1 / noise

    def excess(epsilon):
        x = (math.log((math.exp(epsilon) - 1 + rate) / rate) + shift**2 / 2) / shift
        return rate * stats.norm.sf(x - shift) + (1 - rate - math.exp(epsilon)) * stats.norm.sf(x) - delta

    return optimize.brentq(excess, 1e-9, 60, xtol=1e-12)


@pytest.mark.parametrize(
    ("rate", "noise", "delta"),
    [(1e-3, 0.5, 1e-5), (1e-3, 0.5, 1e-4), (0.01, 1.0, 1e-5), (0.5, 2.0, 1e-6), (0.9, 0.4, 1e-8)],
)
def test_one_step_has_the_closed_form(rate, noise, delta):
    truth = one_step_epsilon(rate, noise, delta)
    found = pld_epsilon(sampling_rate=rate, noise_multiplier=noise, steps=1, delta=delta)
    assert truth * (1 - 1e-9) <= found <= truth * 1.001


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_reference_values_of_the_papers_settings(row):
    _, size, batch, steps, noise, delta, epsilon, _, _ = row
    found = pld_epsilon(sampling_rate=batch / size, noise_multiplier=noise, steps=steps, delta=delta)
    assert epsilon * 0.9998 <= found <= epsilon * 1.001


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "delta"), [(0.1, 1.0, 200, 1e-6), (0.4, 3.0, 150, 1e-5), (0.01, 0.7, 100, 1e-7)]
)
def test_dp_accounting_agrees_where_it_works(rate, noise, steps, delta):
    from dp_accounting.pld import privacy_loss_distribution

    other = privacy_loss_distribution.from_gaussian_mechanism(
        noise, sampling_prob=rate, value_discretization_interval=1e-3, use_connect_dots=True
    ).self_compose(steps)
    found = pld_epsilon(sampling_rate=rate, noise_multiplier=noise, steps=steps, delta=delta)
    assert found == pytest.approx(other.get_epsilon_for_delta(delta), rel=1e-3)
