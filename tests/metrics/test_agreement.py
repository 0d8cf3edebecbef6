"""Bias and limits of agreement against their definition, a published interval, and repeated samples."""

import numpy as np
import pytest
from scipy.stats import norm

from dpmed.metrics.agreement import agreement
from dpmed.metrics.evaluate import draw_units


def made(seed=0, count=400):
    generator = np.random.default_rng(seed)
    targets = generator.normal(60, 10, count)
    values = targets + generator.normal(2, 3, count)
    return values, targets


def alone(count):
    return [str(number) for number in range(count)]


def test_bias_and_limits_are_mean_and_deviations_of_the_differences():
    values, targets = made(count=50)
    targets[3] = np.nan
    found = agreement(values, targets, groups=alone(50), resamples=0)
    assert np.isnan(found.intervals["bias"]).all()
    difference = np.delete(values - targets, 3)
    spread = np.sqrt(sum((one - difference.mean()) ** 2 for one in difference) / 48)
    assert found.samples == 49
    assert found.bias == pytest.approx(sum(difference) / 49)
    assert found.deviation == pytest.approx(spread)
    assert (found.low, found.high) == pytest.approx((found.bias - 1.96 * spread, found.bias + 1.96 * spread))


def test_intervals_are_as_wide_as_bland_and_altman_say_for_normal_differences():
    values, targets = made()
    found = agreement(values, targets, groups=alone(400), resamples=2000)
    # Bland & Altman (1999), section 2: standard errors s/√n, and of the limits s √(1/n + 1.96²/(2(n - 1))).
    errors = {"bias": found.deviation / 20}
    errors["low"] = errors["high"] = found.deviation * np.sqrt(1 / 400 + 1.96**2 / (2 * 399))
    for name, (low, high) in found.intervals.items():
        assert low < getattr(found, name) < high
        # The width of a bootstrap over 400 varies by some percent.
        assert high - low == pytest.approx(2 * norm.ppf(0.975) * errors[name], rel=0.2)


def test_each_resampling_is_that_of_repeated_samples():
    values, targets = made(count=12)
    drawn = []

    def repeat(weights):
        repeated = [np.repeat(values - targets, row) for row in weights]
        drawn.extend((one.mean(), one.mean() + 1.96 * one.std(ddof=1)) for one in repeated)
        return {"none": np.zeros(len(weights))}

    draw_units(alone(12), repeat, resamples=30)
    found = agreement(values, targets, groups=alone(12), resamples=30)
    for name, column in zip(("bias", "high"), zip(*drawn, strict=True), strict=True):
        assert found.intervals[name] == pytest.approx(np.quantile(column, [0.025, 0.975]))


def test_copies_make_no_interval_narrower():
    values, targets = made(count=60)
    once = agreement(values, targets, groups=alone(60), resamples=2000)
    groups = [str(number // 4) for number in range(240)]
    copied = agreement(np.repeat(values, 4), np.repeat(targets, 4), groups=groups, resamples=2000)
    widths = [high - low for low, high in (once.intervals["high"], copied.intervals["high"])]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)


def test_of_nine_known_patients_there_is_no_interval_however_many_images():
    values, targets = made(count=40)
    groups = [str(number % 10) for number in range(40)]
    assert np.isfinite(agreement(values, targets, groups=groups, resamples=50).intervals["bias"]).all()
    targets[::10] = np.nan
    assert np.isnan(agreement(values, targets, groups=groups, resamples=50).intervals["bias"]).all()


def test_one_number_has_no_spread():
    assert agreement(np.array([1.0, 2.0]), np.array([1.0, np.nan]), groups=["a", "b"], resamples=3) is None
