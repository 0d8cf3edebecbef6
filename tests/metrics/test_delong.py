"""DeLong's test against its definition in loops, exact variances of copies, and how often it errs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from dpmed.metrics.delong import compare_areas


def made(seed, count=40, *, ties=True):
    generator = np.random.default_rng(seed)
    positive = np.arange(count) % 3 == 0
    scores = generator.standard_normal((2, count)) + positive * np.array([[1.0], [0.6]])
    return (np.round(scores, 0) if ties else scores), positive


def in_loops(scores, positive):
    """DeLong et al. (1988): structural components by comparing each pair, then the covariance of the two areas."""
    tens, ones, areas = [], [], []
    for row in scores:
        x, y = row[positive], row[~positive]
        table = [[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x]
        tens.append([sum(line) / len(y) for line in table])
        ones.append([sum(line[k] for line in table) / len(x) for k in range(len(y))])
        areas.append(sum(map(sum, table)) / len(x) / len(y))
    covariance = np.cov(tens) / len(tens[0]) + np.cov(ones) / len(ones[0])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return areas, variance


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), ties=st.booleans())
def test_areas_error_and_p_value_are_those_of_the_definition(seed, ties):
    scores, positive = made(seed, ties=ties)
    found = compare_areas(*scores, positive)
    areas, variance = in_loops(scores, positive)
    assert found.first == pytest.approx(areas[0], abs=1e-12)
    assert found.second == pytest.approx(roc_auc_score(positive, scores[1]), abs=1e-12)
    assert found.standard_error == pytest.approx(np.sqrt(variance), abs=1e-9)
    wanted = 2 * norm.cdf(-abs(areas[0] - areas[1]) / np.sqrt(variance))
    assert found.p_value == pytest.approx(wanted, abs=1e-9)
    assert found.interval == pytest.approx(found.difference + np.array([-1, 1]) * 1.959963985 * np.sqrt(variance))


def by_unit_in_loops(scores, positive, groups):
    """Obuchowski (1997), eq. 4 to 8, for each model and their covariance."""
    names = sorted(set(groups))
    total = {}
    for one in range(2):
        for other in range(2):
            x = [[k for k in range(len(groups)) if groups[k] == name and positive[k]] for name in names]
            y = [[k for k in range(len(groups)) if groups[k] == name and not positive[k]] for name in names]

            def above(row, k):
                against = row[~positive] if positive[k] else row[positive]
                sign = 1 if positive[k] else -1
                return np.mean([(sign * (row[k] - b) > 0) + 0.5 * (row[k] == b) for b in against])

            area = [roc_auc_score(positive, scores[row]) for row in (one, other)]
            sums = {
                (row, side): [
                    sum(above(scores[row], k) - area[place] for k in members) for members in (x if side else y)
                ]
                for place, row in enumerate((one, other))
                for side in (0, 1)
            }
            m, n = positive.sum(), (~positive).sum()
            i10, i01, i = sum(map(bool, x)), sum(map(bool, y)), len(names)
            s10 = i10 / ((i10 - 1) * m) * np.dot(sums[one, 1], sums[other, 1])
            s01 = i01 / ((i01 - 1) * n) * np.dot(sums[one, 0], sums[other, 0])
            s11 = i / (i - 1) * (np.dot(sums[one, 1], sums[other, 0]) + np.dot(sums[one, 0], sums[other, 1]))
            total[one, other] = s10 / m + s01 / n + s11 / (m * n)
    return total[0, 0] + total[1, 1] - 2 * total[0, 1]


@pytest.mark.parametrize("seed", range(4))
def test_samples_of_one_unit_are_summed_first(seed):
    scores, positive = made(seed, 24)
    groups = [f"p{number}" for number in np.random.default_rng(seed).integers(0, 9, 24)]
    found = compare_areas(*scores, positive, groups=groups)
    assert found.standard_error**2 == pytest.approx(by_unit_in_loops(scores, positive, groups), abs=1e-9)


def test_copies_of_a_sample_are_no_further_evidence():
    scores, positive = made(1)
    alone = compare_areas(*scores, positive)
    groups = np.repeat([str(number) for number in range(len(positive))], 5).tolist()
    copied = compare_areas(*np.repeat(scores, 5, axis=1), np.repeat(positive, 5), groups=groups)
    assert copied.standard_error == pytest.approx(alone.standard_error, abs=1e-12)
    assert compare_areas(*np.repeat(scores, 5, axis=1), np.repeat(positive, 5)).p_value < alone.p_value


def test_equal_models_are_told_apart_as_often_as_the_level_says():
    rejected = 0
    for seed in range(400):
        generator = np.random.default_rng(seed)
        positive = np.arange(80) % 2 == 0
        rejected += compare_areas(*(generator.standard_normal((2, 80)) + positive), positive).p_value < 0.05
    # Binomial of 400 at 0.05: within four standard deviations.
    assert abs(rejected - 20) < 4 * np.sqrt(400 * 0.05 * 0.95)


def test_equal_ranks_differ_by_nothing_and_one_sided_data_are_not_compared():
    scores, positive = made(0)
    same = compare_areas(scores[0], 3 * scores[0], positive)
    assert (same.difference, same.standard_error, same.interval, same.p_value) == (0.0, 0.0, None, 1.0)
    assert compare_areas(*scores, np.ones_like(positive)) is None
    for few in (1, 4):
        rare = np.arange(len(positive)) < few
        assert compare_areas(*scores, rare) is None and compare_areas(*scores, ~rare) is None
    assert compare_areas(*scores, np.arange(len(positive)) < 5) is not None


def test_a_few_images_of_four_patients_are_not_compared():
    scores, positive = made(2)
    groups = [f"p{number % 4}" if side else f"n{number}" for number, side in enumerate(positive.tolist())]
    assert compare_areas(*scores, positive, groups=groups) is None


def test_a_perfect_and_a_constant_model_leave_nothing_to_estimate_an_error_from():
    """Each pair differs by the same half: the standard error of zero would make the difference certain."""
    positive = np.arange(12) < 5
    assert compare_areas(positive.astype(float), np.zeros(12), positive) is None
