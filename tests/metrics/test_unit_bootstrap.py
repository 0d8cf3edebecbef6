"""Intervals by unit: a patient's samples are drawn together."""

import numpy as np
import pytest

from dpmed.metrics.evaluate import bootstrap, evaluate, unit_weights


def test_all_samples_of_a_unit_are_drawn_equally_often():
    groups = ["b", "a", "a", "c", "b"]
    weights = unit_weights(groups, resamples=200, generator=np.random.default_rng(0))
    assert (weights[:, 1] == weights[:, 2]).all() and (weights[:, 0] == weights[:, 4]).all()
    # Three units are drawn each time.
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_how_often_units_occur_is_multinomial():
    weights = unit_weights([str(number) for number in range(20)], resamples=20_000, generator=np.random.default_rng(3))
    assert weights.sum(axis=1).tolist() == [20] * 20_000
    # Means are known to 0.007, covariances to 0.01; five of those.
    np.testing.assert_allclose(weights.mean(axis=0), 1.0, atol=0.035)
    np.testing.assert_allclose(np.cov(weights.T), np.eye(20) - 1 / 20, atol=0.05)
    assert unit_weights(["a", "b", "a"], resamples=0, generator=np.random.default_rng(3)).shape == (0, 3)


def copied(values, times):
    return np.repeat(values, times, axis=0)


@pytest.mark.parametrize("task", ["classification", "regression", "segmentation"])
def test_copies_of_a_sample_make_no_interval_narrower(task):
    generator = np.random.default_rng(1)
    if task == "classification":
        predictions, targets = generator.standard_normal((60, 3)), generator.integers(0, 3, 60)
    elif task == "regression":
        targets = generator.standard_normal((60, 1)).astype(np.float32)
        predictions = targets + generator.standard_normal((60, 1)).astype(np.float32)
    else:
        targets = generator.integers(0, 3, (60, 6, 6))
        predictions = np.where(generator.random((60, 6, 6)) < 0.5, targets, generator.integers(0, 3, (60, 6, 6)))
    common = {"task": task, "class_names": ("x",) if task == "regression" else ("x", "y", "z")}
    alone = bootstrap((), predictions, targets, **common, resamples=2000, seed=0)
    groups = [f"unit {number // 5}" for number in range(300)]
    together = bootstrap(
        (), copied(predictions, 5), copied(targets, 5), **common, resamples=2000, seed=0, groups=groups
    )
    as_if_apart = bootstrap((), copied(predictions, 5), copied(targets, 5), **common, resamples=2000, seed=0)
    name = next(iter(evaluate((), predictions, targets, **common)))
    widths = [high - low for low, high in (alone[name], together[name], as_if_apart[name])]
    # Equal but for the drawing; apart they would be narrower by the root of five.
    assert widths[1] == pytest.approx(widths[0], rel=0.12)
    assert widths[2] < 0.65 * widths[1]
