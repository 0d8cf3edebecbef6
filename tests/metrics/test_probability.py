"""Weighted scores against scikit-learn's with sample weights, and against samples that are really repeated."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss

from dpmed.metrics import operating
from dpmed.metrics.probability import draws, error_by_chance


def made(seed, count=70):
    generator = np.random.default_rng(seed)
    probability = np.round(generator.random(count), 2)  # with ties
    positive = generator.random(count) < probability
    return probability, positive, generator.multinomial(count, np.full(count, 1 / count), size=15)


@pytest.mark.parametrize("seed", range(5))
def test_each_resampling_has_the_score_of_its_samples(seed):
    probability, positive, weights = made(seed)
    found = draws(probability, positive, weights)
    for row, weight in enumerate(weights):
        repeated, truth = np.repeat(probability, weight), np.repeat(positive, weight)
        assert found["brier"][row] == pytest.approx(brier_score_loss(truth, repeated), abs=1e-9)
        assert found["auprc"][row] == pytest.approx(average_precision_score(truth, repeated), abs=1e-9)
        weighted = average_precision_score(positive, probability, sample_weight=weight)
        assert found["auprc"][row] == pytest.approx(weighted, abs=1e-9)
        bins = operating.calibration(repeated, truth)
        gaps = [one.samples * abs(one.mean_probability - one.share_positive) for one in bins]
        assert found["ece"][row] == pytest.approx(sum(gaps) / len(truth), abs=1e-9)


def test_where_nothing_is_positive_there_is_no_precision():
    found = draws(np.array([0.2, 0.9]), np.array([False, False]), np.array([[1, 1]]))
    assert np.isnan(found["auprc"][0]) and found["brier"][0] == pytest.approx((0.04 + 0.81) / 2)


def test_right_probabilities_stay_within_the_error_by_chance_in_95_percent_of_trials():
    generator, once = np.random.default_rng(8), np.ones((1, 100), int)
    probability = generator.random(100)
    limit = error_by_chance(probability)
    errors = [draws(probability, generator.random(100) < probability, once)["ece"][0] for _ in range(2000)]
    assert np.mean(np.array(errors) <= limit) == pytest.approx(0.95, abs=0.025)
    # It shrinks as 1 / √n.
    assert error_by_chance(np.repeat(probability, 100)) == pytest.approx(limit / 10, rel=0.2)
