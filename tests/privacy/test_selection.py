"""Choosing among a random number of trainings: against the theorem by our own moments, and the law of the number."""

import math

import numpy as np
import pytest
from scipy import stats

from dpmed.privacy.loss.losses import WorstCase
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.rdp import rdp_moment
from dpmed.privacy.selection import draw_trials, selection_cost

DELTA = 1e-5


def by_theorem(training, mean):
    """Papernot & Steinke, Theorem 2 with η = 1, over a grid of orders; conversion of Canonne, Kamath & Steinke."""
    step = WorstCase(training.sampling_rate, 1 / training.noise_multiplier)
    orders = np.geomspace(1.2, 400, 300)
    renyi = np.array([training.steps * rdp_moment(step, order - 1) / (order - 1) for order in orders])
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
    found = selection_cost(training, mean=mean, delta=DELTA).by_selection
    # Whole orders can only cost: never below the theorem's best, and close to it.
    assert by_theorem(training, mean) * (1 - 1e-4) <= found <= by_theorem(training, mean) * 1.03


def test_many_trials_cost_less_by_selection_and_two_by_composition():
    training = SampledGaussian(noise_multiplier=2.5, sampling_rate=0.1, steps=100)
    two, ten = (selection_cost(training, mean=mean, delta=DELTA) for mean in (2, 10))
    assert not two.is_random and two.epsilon == two.by_composition < two.by_selection
    assert ten.is_random and ten.epsilon == ten.by_selection < ten.by_composition
    with pytest.raises(ValueError, match="mean=1"):
        selection_cost(training, mean=1, delta=DELTA)


def test_beyond_the_librarys_reach_all_trials_are_composed():
    training = SampledGaussian(noise_multiplier=1e-153, sampling_rate=0.1, steps=100)
    cost = selection_cost(training, mean=3, delta=DELTA)
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
