import numpy as np
import pytest
from scipy.stats import binomtest

from dpmed.matching.rero import share_recovered


@pytest.mark.parametrize("recovered", [0, 1, 7, 20])
def test_the_interval_is_the_exact_one(recovered):
    distances = np.where(np.arange(20) < recovered, 0.1, 0.9)
    found = share_recovered(distances, 20, threshold=0.1)
    exact = binomtest(recovered, 20).proportion_ci(0.95, "exact")
    assert found.recovered == recovered and found.share == recovered / 20
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-12)


def test_originals_without_a_match_count_as_not_recovered():
    assert share_recovered(np.array([0.0]), 4, threshold=0.5).share == 0.25
    assert share_recovered(np.zeros(0), 4, threshold=0.5).share == 0.0


@pytest.mark.parametrize(("distances", "originals"), [(2, 1), (0, 0)])
def test_more_distances_than_originals_are_refused(distances, originals):
    with pytest.raises(ValueError, match="originals"):
        share_recovered(np.zeros(distances), originals, threshold=0.5)
