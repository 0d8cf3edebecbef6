"""Choosing among a random number of trainings: against the theorem by our own moments, and the law of the number."""

import math

import numpy as np
import pytest
from dp_accounting import dp_event, rdp
from scipy import stats

from dpmed.privacy.loss.losses import WorstCase
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.rdp import rdp_moment
from dpmed.privacy.selection import draw_trials, tuning_cost
from dpmed.privacy.several import composed_epsilon

DELTA = 1e-5


def curve(training, orders):
    step = WorstCase(training.sampling_rate, 1 / training.noise_multiplier)
    return np.array([training.steps * rdp_moment(step, order - 1) / (order - 1) for order in orders])


def by_theorem(mean, *trainings):
    """Papernot & Steinke, Theorem 2 with η = 1, over a grid of orders; conversion of Canonne, Kamath & Steinke."""
    orders = np.geomspace(1.2, 400, 300)
    renyi = np.max([curve(training, orders) for training in trainings], axis=0)
    constant = 2 * np.min((1 - 1 / orders) * renyi + math.log(mean) / orders)
    chosen = renyi + constant + math.log(mean) / (orders - 1)
    return float(np.min(chosen + np.log1p(-1 / orders) - (math.log(DELTA) + np.log(orders)) / (orders - 1)))


@pytest.mark.parametrize("mean", [2, 10])
@pytest.mark.parametrize(
    "training",
    [
        SampledGaussian(noise_multiplier=1.5, sampling_rate=0.1, steps=100),
        SampledGaussian(noise_multiplier=8.0, sampling_rate=1.0, steps=20),
    ],
)
def test_it_is_the_theorem(training, mean):
    found = tuning_cost((training,) * mean, delta=DELTA).by_selection
    # Whole orders can only cost: never below the theorem's best, and close to it.
    assert by_theorem(mean, training) * (1 - 1e-4) <= found <= by_theorem(mean, training) * 1.03


@pytest.mark.parametrize("mean", [2, 3, 30])
@pytest.mark.parametrize(
    "training",
    [
        SampledGaussian(noise_multiplier=1.5, sampling_rate=0.1, steps=100),
        SampledGaussian(noise_multiplier=0.7, sampling_rate=0.01, steps=2000),
        SampledGaussian(noise_multiplier=8.0, sampling_rate=1.0, steps=20),
        SampledGaussian(noise_multiplier=40.0, sampling_rate=0.3, steps=20),
    ],
)
def test_it_is_what_dp_accounting_says(training, mean):
    step = dp_event.GaussianDpEvent(training.noise_multiplier)
    if training.sampling_rate < 1:
        step = dp_event.PoissonSampledDpEvent(training.sampling_rate, step)
    event = dp_event.RepeatAndSelectDpEvent(dp_event.SelfComposedDpEvent(step, training.steps), mean, 1.0)
    theirs = rdp.RdpAccountant(orders=[*range(2, 65), 80, 96, 128, 192, 256, 512, 1024]).compose(event)
    found = tuning_cost((training,) * mean, delta=DELTA).by_selection
    assert found == pytest.approx(theirs.get_epsilon(DELTA), rel=1e-9)


def test_settings_that_differ_cost_at_least_what_the_dearest_alone_costs():
    # The one spends more at low orders, the other at high ones: neither alone bounds the mixture.
    many = SampledGaussian(noise_multiplier=30.0, sampling_rate=1.0, steps=400)
    few = SampledGaussian(noise_multiplier=0.8, sampling_rate=0.005, steps=400)
    together = tuning_cost((many, few, many), delta=DELTA)
    alone = [tuning_cost((one,) * 3, delta=DELTA).by_selection for one in (many, few)]
    assert together.by_selection >= max(alone)
    assert together.by_composition == pytest.approx(composed_epsilon((many, few, many), DELTA))
    assert tuning_cost((few, many, many), delta=DELTA).by_selection == together.by_selection
    assert curve(many, [2.0])[0] > curve(few, [2.0])[0] and curve(many, [200.0])[0] < curve(few, [200.0])[0]
    best = by_theorem(3, many, few)
    assert best * (1 - 1e-4) <= together.by_selection <= best * 1.03


@pytest.mark.parametrize("order", [2, 5, 17])
def test_drawing_settings_and_training_has_at_most_the_largest_divergence(order):
    """The mixture itself, with its setting shown, by quadrature over the outputs of one step of each."""
    settings = [(1.0, 0.3), (3.0, 0.9)]
    x = np.linspace(-60, 80, 400_001)
    total, largest = 0.0, 0.0
    for noise, rate in settings:
        without = stats.norm.pdf(x, 0, noise)
        having = (1 - rate) * without + rate * stats.norm.pdf(x, 1, noise)
        moment = np.trapezoid(
            np.where(without > 0, having * (having / np.maximum(without, 1e-300)) ** (order - 1), 0), x
        )
        total += moment / len(settings)
        step = WorstCase(rate, 1 / noise)
        largest = max(largest, rdp_moment(step, order - 1.0) / (order - 1))
    assert math.log(total) / (order - 1) <= largest * (1 + 1e-6)


def test_many_trials_cost_less_by_selection_and_two_by_composition():
    training = SampledGaussian(noise_multiplier=2.5, sampling_rate=0.1, steps=100)
    two, ten = (tuning_cost((training,) * mean, delta=DELTA) for mean in (2, 10))
    assert not two.is_random and two.epsilon == two.by_composition < two.by_selection
    assert ten.is_random and ten.epsilon == ten.by_selection < ten.by_composition
    with pytest.raises(ValueError, match="mean=1"):
        tuning_cost((training,), delta=DELTA)


def test_beyond_floating_point_all_trials_are_composed():
    training = SampledGaussian(noise_multiplier=1e-153, sampling_rate=0.1, steps=100)
    cost = tuning_cost((training,) * 3, delta=DELTA)
    assert cost.by_selection is None and not cost.is_random and cost.epsilon == cost.by_composition


def test_the_number_of_trials_is_geometric():
    drawn = np.array([draw_trials(4) for _ in range(20000)])
    edges = np.arange(1, 13)
    seen = np.array([*(drawn == k for k in edges), drawn > edges[-1]]).sum(axis=1)
    law = stats.geom(0.25)
    expected = 20000 * np.array([*law.pmf(edges), law.sf(edges[-1])])
    # Fails by chance once in a million runs.
    assert stats.chisquare(seen, expected).pvalue > 1e-6
    assert abs(drawn.mean() - 4) < 6 * math.sqrt(12 / 20000)
