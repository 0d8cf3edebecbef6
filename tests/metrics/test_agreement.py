"""Bias and limits of agreement against their definition, a published interval, and repeated samples."""

import numpy as np
import pytest
from scipy.stats import norm

from dpmed.metrics.agreement import agreement
from dpmed.metrics.evaluate import unit_weights


def made(seed=0, count=400):
    generator = np.random.default_rng(seed)
    targets = generator.normal(60, 10, count)
    values = targets + generator.normal(2, 3, count)
    return values, targets, generator


def weights_of(groups, generator, resamples=2000):
    return unit_weights(groups, resamples=resamples, generator=generator)


def test_bias_and_limits_are_mean_and_deviations_of_the_differences():
    values, targets, generator = made(count=50)
    targets[3] = np.nan
    found = agreement(values, targets, weights=weights_of([str(n) for n in range(50)], generator))
    difference = np.delete(values - targets, 3)
    spread = np.sqrt(sum((one - difference.mean()) ** 2 for one in difference) / 48)
    assert found.samples == 49
    assert found.bias == pytest.approx(sum(difference) / 49)
    assert found.deviation == pytest.approx(spread)
    assert (found.low, found.high) == pytest.approx((found.bias - 1.96 * spread, found.bias + 1.96 * spread))


def test_intervals_are_as_wide_as_bland_and_altman_say_for_normal_differences():
    values, targets, generator = made()
    found = agreement(values, targets, weights=weights_of([str(n) for n in range(400)], generator))
    # Bland & Altman (1999), section 2: standard errors s/√n, and of the limits s √(1/n + 1.96²/(2(n - 1))).
    errors = {"bias": found.deviation / 20}
    errors["low"] = errors["high"] = found.deviation * np.sqrt(1 / 400 + 1.96**2 / (2 * 399))
    for name, (low, high) in found.intervals.items():
        assert low < getattr(found, name) < high
        # The width of a bootstrap over 400 varies by some percent.
        assert high - low == pytest.approx(2 * norm.ppf(0.975) * errors[name], rel=0.2)


def test_each_resampling_is_that_of_repeated_samples():
    values, targets, generator = made(count=12)
    weights = weights_of([str(n) for n in range(12)], generator, resamples=1)
    found = agreement(values, targets, weights=weights)
    repeated = np.repeat(values - targets, weights[0])
    assert found.intervals["bias"] == pytest.approx((repeated.mean(),) * 2)
    assert found.intervals["high"] == pytest.approx((repeated.mean() + 1.96 * repeated.std(ddof=1),) * 2)


def test_copies_make_no_interval_narrower():
    values, targets, generator = made(count=60)
    alone = agreement(values, targets, weights=weights_of([str(n) for n in range(60)], generator))
    groups = [str(number // 4) for number in range(240)]
    copied = agreement(np.repeat(values, 4), np.repeat(targets, 4), weights=weights_of(groups, generator))
    widths = [high - low for low, high in (alone.intervals["high"], copied.intervals["high"])]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)


def test_one_number_has_no_spread():
    assert agreement(np.array([1.0, 2.0]), np.array([1.0, np.nan]), weights=np.ones((3, 2), int)) is None
