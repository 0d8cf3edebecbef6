"""ε of different mechanisms together: dp-accounting, numerical integration, and the order that composition imposes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, special, stats

from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.several import composed_epsilon


def made(noise, rate, steps):
    return SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps)


# A week's runs on the same patients: sweeps, fine-tuning with full batches, many short runs.
COHORTS = [
    [(1.0, 0.01, 500), (2.0, 0.1, 300)],
    [(0.7, 0.003, 900), (5.0, 0.5, 200), (40.0, 1.0, 30), (60.0, 1.0, 7)],
    [(0.6 + 0.2 * k, 0.01 * (k + 1), 40 + 7 * k) for k in range(10)],
]


def dp_accounting_epsilon(kinds, delta, width):
    from dp_accounting.pld import privacy_loss_distribution as room

    total = None
    for noise, rate, steps in kinds:
        one = room.from_gaussian_mechanism(noise, sampling_prob=rate, value_discretization_interval=width)
        one = one.self_compose(steps, tail_mass_truncation=1e-15)
        total = one if total is None else total.compose(one, tail_mass_truncation=1e-15)
    return total.get_epsilon_for_delta(delta)


@pytest.mark.parametrize("kinds", COHORTS)
@pytest.mark.parametrize("delta", [1e-5, 1e-8])
def test_dp_accounting_agrees_within_a_tenth_of_a_percent_and_we_are_never_under(kinds, delta):
    found = composed_epsilon([made(*kind) for kind in kinds], delta)
    coarse, fine = (dp_accounting_epsilon(kinds, delta, width * found) for width in (2e-4, 1e-4))
    # What halving its grid changed is three times what its grid still adds.
    assert fine - (coarse - fine) / 3 * 1.5 - 2e-6 * found <= found <= fine * 1.001


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.0, 0.01, 700), (1e-4, 0.1, 20), (30.0, 1.0, 11)])
def test_two_equal_runs_are_one_of_twice_the_steps(noise, rate, steps, accountant):
    half, whole = made(noise, rate, steps), made(noise, rate, 2 * steps)
    assert composed_epsilon([half, half], 1e-6, accountant=accountant) == composed_epsilon(
        [whole], 1e-6, accountant=accountant
    )
    # Not by their being equal: σ that differ in the seventh digit are two kinds of steps.
    nearly = made(noise * (1 + 1e-7), rate, steps)
    assert composed_epsilon([half, nearly], 1e-6, accountant=accountant) == pytest.approx(
        composed_epsilon([whole], 1e-6, accountant=accountant), rel=1e-6
    )


def log_delta_of_one_step(epsilon, rate, shift):
    """log δ(ε) of one step that removes the target, for ε > 0 of any size."""
    log_ratio = epsilon + math.log1p((rate - 1) * math.exp(-epsilon))
    place = (log_ratio - math.log(rate)) / shift + shift / 2
    above, beyond = math.log(rate) + special.log_ndtr(shift - place), log_ratio + special.log_ndtr(-place)
    return above + math.log1p(-math.exp(min(beyond - above, -1e-300)))


@pytest.mark.parametrize("loud", [(1e-3, 0.3), (1e-3, 1e-3), (2.5e-3, 0.02)])
@pytest.mark.parametrize("quiet", [(0.05, 0.2), (0.3, 0.01), (1.0, 0.5), (300.0, 0.9)])
def test_a_step_with_next_to_no_noise_beside_one_with_noise(loud, quiet):
    # One step each: δ(ε) is the mean of the one's δ(ε - L) over the other's loss L under Q.
    delta, shift, rate = 1e-5, 1 / quiet[0], quiet[1]
    x = np.linspace(-9.0, shift + 9.0, 2001)
    density = (1 - rate) * stats.norm.pdf(x) + rate * stats.norm.pdf(x - shift)
    losses = np.logaddexp(math.log1p(-rate), math.log(rate) + shift * x - shift**2 / 2)

    def total(epsilon):
        deltas = [math.exp(log_delta_of_one_step(epsilon - loss, loud[1], 1 / loud[0])) for loss in losses]
        return float(integrate.trapezoid(density * deltas, x))

    truth = optimize.brentq(lambda e: total(e) - delta, 0.2 / loud[0] ** 2, 1.5 / loud[0] ** 2, xtol=1e-3)
    found = composed_epsilon([made(*loud, 1), made(*quiet, 1)], delta)
    assert truth * (1 - 1e-6) <= found <= truth * 1.002


NOISES = st.floats(-9.0, 6.0).map(lambda exponent: 10.0**exponent)
RATES = st.one_of(st.floats(-5.0, 0.0).map(lambda exponent: 10.0**exponent), st.just(1.0))
KINDS = st.builds(made, NOISES, RATES, st.integers(1, 3000))


@settings(max_examples=5, deadline=None, derandomize=True, database=None)
@given(st.lists(KINDS, min_size=2, max_size=3), st.floats(-9.0, -3.0).map(lambda exponent: 10.0**exponent))
def test_together_costs_no_less_than_each_alone_and_no_more_than_their_sum(mechanisms, delta):
    found = composed_epsilon(mechanisms, delta)
    assert math.isfinite(found)
    alone = [composed_epsilon([one], delta) for one in mechanisms]
    assert found >= max(alone) * (1 - 4e-4) - 1e-6
    share = delta / len(mechanisms)
    assert found <= sum(composed_epsilon([one], share) for one in mechanisms) * (1 + 1e-3) + 1e-4
    # The rest of a composition costs something too.
    assert found >= composed_epsilon(mechanisms[1:], delta) * (1 - 4e-4) - 1e-6
    assert composed_epsilon(mechanisms, delta, accountant="rdp") >= found * (1 - 4e-4) - 1e-6


def test_who_hardly_ever_takes_part_spends_nothing():
    mechanisms = [made(1e-6, 1e-7, 4), made(1.0, 1e-7, 5)]
    assert composed_epsilon(mechanisms, 1e-6) == 0
    assert composed_epsilon([*mechanisms, made(1e-6, 1e-6, 1)], 1e-6) > 0


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_nothing_done_spends_nothing(accountant):
    assert composed_epsilon([], 1e-6, accountant=accountant) == 0
    assert composed_epsilon([made(1.0, 0.1, 0)], 1e-6, accountant=accountant) == 0


@pytest.mark.parametrize("delta", [0.0, 1.0, math.nan])
def test_impossible_deltas_are_refused(delta):
    with pytest.raises(ValueError, match="delta"):
        composed_epsilon([made(1.0, 0.1, 1)], delta)
