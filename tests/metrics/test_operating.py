"""Operating points and calibration against slow counts, scikit-learn and Bayes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, precision_score, recall_score

from dpmed.metrics import operating
from dpmed.metrics.probability import draws


def sample(seed=0, count=400):
    generator = np.random.default_rng(seed)
    probability = generator.random(count)
    return probability, generator.random(count) < probability


def test_a_point_is_what_counting_gives():
    probability, positive = sample()
    point = operating.operating_point(probability, positive, 0.4)
    says_yes = probability >= 0.4
    assert point.sensitivity == pytest.approx(recall_score(positive, says_yes))
    assert point.specificity == pytest.approx(recall_score(~positive, ~says_yes))
    assert point.ppv == pytest.approx(precision_score(positive, says_yes))
    assert point.npv == pytest.approx(precision_score(~positive, ~says_yes))
    low, high = point.sensitivity_interval
    assert low < point.sensitivity < high
    # At the prevalence of these data Bayes gives back what was counted.
    assert point.at_prevalence(positive.mean()) == pytest.approx((point.ppv, point.npv))


@settings(deadline=None)
@given(st.integers(0, 50), st.floats(0.05, 1.0))
def test_thresholds_reach_what_is_asked_and_no_further_one_does(seed, share):
    probability, positive = sample(seed, 60)
    threshold = operating.threshold_for_sensitivity(probability, positive, share)
    assert operating.operating_point(probability, positive, threshold).sensitivity >= share - 1e-9
    above = operating.operating_point(probability, positive, np.nextafter(threshold, np.inf))
    assert above.sensitivity < share
    threshold = operating.threshold_for_specificity(probability, positive, share)
    assert operating.operating_point(probability, positive, threshold).specificity >= share - 1e-9


@pytest.mark.parametrize("share", [0.07, 0.14, 0.55, 0.56, 1.0])
def test_no_more_is_found_than_is_asked_for_where_the_share_is_a_whole_number(share):
    # 0.55 * 100 is 55.00000000000001 in floating point.
    probability, positive = np.linspace(0, 1, 100), np.ones(100, bool)
    threshold = operating.threshold_for_sensitivity(probability, positive, share)
    assert (probability >= threshold).sum() == round(100 * share)


def test_the_smallest_share_is_still_one_positive():
    probability, positive = np.linspace(0, 1, 100), np.ones(100, bool)
    assert operating.threshold_for_sensitivity(probability, positive, 1e-12) == 1.0


def test_calibration_is_scikit_learns_and_its_error_the_weighted_gap():
    probability, positive = sample()
    bins = operating.calibration(probability, positive)
    seen, predicted = calibration_curve(positive, probability, n_bins=operating.BINS)
    assert [one.share_positive for one in bins] == pytest.approx(seen.tolist())
    assert [one.mean_probability for one in bins] == pytest.approx(predicted.tolist())
    counts = np.histogram(probability, operating.BINS, (0, 1))[0]
    expected = float(np.abs(seen - predicted) @ counts / counts.sum())
    once = draws(probability, positive, np.ones((1, len(positive)), np.int64))
    assert once["ece"][0] == pytest.approx(expected)
    assert once["brier"][0] == pytest.approx(brier_score_loss(positive, probability))
    assert once["auprc"][0] == pytest.approx(average_precision_score(positive, probability))


def test_without_positives_nothing_is_claimed():
    point = operating.operating_point(np.array([0.2, 0.7]), np.array([False, False]), 0.5)
    assert np.isnan(point.sensitivity) and point.specificity == 0.5
    assert np.isnan(draws(np.array([0.2]), np.array([False]), np.ones((1, 1), np.int64))["auprc"][0])
