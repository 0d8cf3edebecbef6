import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from dpmed.auditing.scores import FPRS, proven_bounds, resolves, separate
from dpmed.privacy.mechanism import SampledGaussian


def test_it_is_the_area_and_the_share_above_a_threshold():
    generator = np.random.default_rng(0)
    member = generator.random(5000) < 0.4
    scores = generator.standard_normal(5000) + 1.5 * member
    found = separate(scores, member)
    assert found.auc == pytest.approx(roc_auc_score(member, scores))
    outside = scores[~member]
    for rate, tpr, (low, high) in zip((1e-3, 1e-2), found.tpr, found.tpr_intervals, strict=True):
        allowed = [threshold for threshold in outside if (outside > threshold).mean() <= rate]
        assert tpr == max((scores[member] > threshold).mean() for threshold in allowed)
        assert low <= tpr <= high


def test_perfect_and_no_separation():
    member = np.arange(100) < 50
    perfect = separate(member * 1.0, member)
    assert perfect.tpr == (1.0, 1.0) and perfect.auc_interval[0] > 0.9 and perfect.auc_interval[1] == 1.0
    # Fifty non-members cannot tell a threshold of so small an FPR.
    assert [low for low, _ in perfect.tpr_intervals] == [0.0, 0.0]
    assert [resolves(rate, count) for rate in FPRS for count in (50, 100, 999, 1000)] == [
        False, False, False, True, False, True, True, True,
    ]  # fmt: skip
    none = separate(np.zeros(100), member)
    assert none.tpr == (0.0, 0.0) and none.auc_interval[0] < 0.5 < none.auc_interval[1]


@pytest.mark.parametrize(("members", "others"), [(60, 40), (300, 4000)])
def test_intervals_hold_the_truth_as_often_as_they_say(members, others):
    generator = np.random.default_rng(1)
    shift, runs = 1.5, 150
    truth = [float(stats.norm.cdf(shift + stats.norm.ppf(rate))) for rate in (1e-3, 1e-2)]
    auc = float(stats.norm.cdf(shift / np.sqrt(2)))
    member = np.arange(members + others) < members
    missed = np.zeros(3)
    for _ in range(runs):
        found = separate(generator.standard_normal(len(member)) + shift * member, member)
        intervals = (*found.tpr_intervals, found.auc_interval)
        missed += [not low <= value <= high for value, (low, high) in zip((*truth, auc), intervals, strict=True)]
    # 5 % of 150 are 7.5: more than 18 happens by chance less than once in 2000 times.
    assert missed.max() <= 18


def test_the_bounds_of_full_batches_are_those_of_two_normal_distributions():
    # One step with q = 1: N(0, 1) against N(1/σ, 1), for which all is known.
    shift = 1.6
    found = proven_bounds(SampledGaussian(noise_multiplier=1 / shift, sampling_rate=1.0, steps=1))
    assert found.advantage == pytest.approx(2 * stats.norm.cdf(shift / 2) - 1, rel=1e-6)
    area = stats.norm.cdf(shift / np.sqrt(2))
    # Straight lines above the curve: above, by little. Half of one plus the advantage would be below.
    assert area <= found.auc <= area + 0.01
    assert 0.5 * (1 + found.advantage) < area
    for rate, tpr in zip((1e-3, 1e-2), found.tpr, strict=True):
        assert tpr == pytest.approx(stats.norm.cdf(shift + stats.norm.ppf(rate)), rel=1e-6)


def test_jax_privacys_area_is_that_of_the_convex_hull():
    # jax-privacy 2.0.0, CanaryScoreAuditor.attack_auroc and tpr_at_given_fpr of the same scores: they let a test be
    # chosen by chance between two thresholds, and choose these with the scores at hand, so that theirs are larger.
    generator = np.random.default_rng(0)
    member = generator.random(300) < 0.5
    scores = generator.standard_normal(300) + 1.5 * member
    found = separate(scores, member)
    false, true, _ = roc_curve(member, scores, drop_intermediate=False)
    hull = [(0.0, 0.0)]
    for point in zip(false.tolist(), true.tolist(), strict=True):
        while len(hull) > 1 and (hull[-1][0] - hull[-2][0]) * (point[1] - hull[-2][1]) >= (
            hull[-1][1] - hull[-2][1]
        ) * (point[0] - hull[-2][0]):
            hull.pop()
        hull.append(point)
    across, up = np.array(hull).T
    assert np.trapezoid(up, across) == pytest.approx(0.8921436588103255, abs=1e-6)
    assert np.interp([1e-3, 1e-2], across, up) == pytest.approx([0.48514814814814816, 0.5133333333333333], abs=1e-6)
    assert found.auc < 0.8921436588103255 and found.tpr[0] <= 0.48514814814814816
