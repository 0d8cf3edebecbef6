import pytest
from scipy.stats import beta, binom

from dpmed.metrics.intervals import binomial_interval


@pytest.mark.parametrize("confidence", [0.95, 0.99])
@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 10), (500, 1000), (1, 10**6)])
def test_the_interval_leaves_half_of_the_error_on_each_side(successes, trials, confidence):
    found = binomial_interval(successes, trials, confidence=confidence)
    tail = (1 - confidence) / 2
    if successes:
        assert binom.sf(successes - 1, trials, found.low) == pytest.approx(tail, rel=1e-4)
        assert found.low == pytest.approx(beta.ppf(tail, successes, trials - successes + 1), abs=1e-11)
    if successes < trials:
        assert binom.cdf(successes, trials, found.high) == pytest.approx(tail, rel=1e-4)
    assert 0 <= found.low <= successes / trials <= found.high <= 1
    assert (found.low == 0) == (successes == 0) and (found.high == 1) == (successes == trials)


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 2), (0, 0)])
def test_impossible_counts_are_errors(successes, trials):
    with pytest.raises(ValueError, match="successes"):
        binomial_interval(successes, trials, confidence=0.95)
