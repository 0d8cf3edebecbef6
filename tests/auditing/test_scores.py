import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dpmed.auditing.scores import separate


def test_it_is_the_area_and_the_share_above_a_threshold():
    generator = np.random.default_rng(0)
    member = generator.random(5000) < 0.4
    scores = generator.standard_normal(5000) + 1.5 * member
    found = separate(scores, member)
    assert found.auc == pytest.approx(roc_auc_score(member, scores))
    outside = scores[~member]
    for rate, tpr, (low, high) in zip((1e-3, 1e-2), found.tpr, found.intervals, strict=True):
        allowed = [threshold for threshold in outside if (outside > threshold).mean() <= rate]
        assert tpr == max((scores[member] > threshold).mean() for threshold in allowed)
        assert low <= tpr <= high


def test_perfect_and_no_separation():
    member = np.arange(100) < 50
    assert separate(member * 1.0, member).tpr == (1.0, 1.0)
    assert separate(np.zeros(100), member).tpr == (0.0, 0.0)
