"""Guesses are few, even and about the surest canaries; what the best score would show is below the ε of the claim."""

import numpy as np
import pytest

from dpmed.auditing.guessing import best_limit, number_of_guesses, right_guesses
from dpmed.auditing.lower_limit import epsilon_by_curve
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.several import composed_epsilon


@pytest.mark.parametrize(("canaries", "guesses"), [(1000, 300), (101, 30), (33, 10), (20, 10), (7, 6), (1, 0)])
def test_the_number_of_guesses_is_even_and_no_more_than_there_are_canaries(canaries, guesses):
    assert number_of_guesses(canaries) == guesses


def test_right_guesses_are_those_of_a_slow_count():
    generator = np.random.default_rng(0)
    for _ in range(20):
        included = generator.random(40) < 0.5
        scores = included + generator.standard_normal(40)
        ranked = sorted(range(40), key=lambda canary: scores[canary])
        lowest, highest = ranked[:6], ranked[-6:]
        wanted = sum(not included[canary] for canary in lowest) + sum(included[canary] for canary in highest)
        assert right_guesses(scores, included, 12) == wanted
    assert right_guesses(included.astype(float), included, 12) == 12
    assert right_guesses(-included.astype(float), included, 12) == 0


def test_the_best_limit_is_that_of_the_likelihood_ratio_and_below_the_claim():
    # Full batches, whose trade-off curve is quick to compute, and whose steps make one Gaussian mechanism.
    claimed = SampledGaussian(noise_multiplier=2.0, sampling_rate=1.0, steps=9)
    asked = {"canaries": 200, "guesses": 60}
    best = best_limit(claimed, **asked, delta=1e-5, level=0.05)
    generator = np.random.default_rng(1)
    included = generator.random((300, 200)) < 0.5
    sums = 9 * included + 6.0 * generator.standard_normal(included.shape)
    counts = [right_guesses(*one, 60) for one in zip(sums, included, strict=True)]
    limits = [
        epsilon_by_curve(claimed, **asked, correct=int(count), delta=1e-5, level=0.05)
        for count in np.quantile(counts, [0.05, 0.95])
    ]
    assert 0 < limits[0] <= best <= limits[1]
    assert best < composed_epsilon((claimed,), 1e-5)
