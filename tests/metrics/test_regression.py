"""Numbers against scikit-learn; what is unknown counts nowhere."""

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from dpmed.metrics.evaluate import bootstrap, evaluate
from dpmed.metrics.regression import report

RNG = np.random.default_rng(0)
TARGETS = RNG.normal(100, 20, (50, 2)).astype(np.float32)
VALUES = (TARGETS + RNG.normal(0, 8, (50, 2))).astype(np.float32)
TARGETS[::7, 1] = np.nan
TASK = {"task": "regression", "class_names": ("age", "height")}


def test_metrics_of_each_target_are_scikit_learns_over_what_is_known():
    found = evaluate((), VALUES, TARGETS, **TASK)
    for number, name in enumerate(("age", "height")):
        known = np.isfinite(TARGETS[:, number])
        pair = TARGETS[known, number].astype(float), VALUES[known, number].astype(float)
        assert found[f"mae_{name}"] == pytest.approx(mean_absolute_error(*pair))
        assert found[f"rmse_{name}"] == pytest.approx(mean_squared_error(*pair) ** 0.5)
        assert found[f"r2_{name}"] == pytest.approx(r2_score(*pair))
    for metric in ("mae", "rmse", "r2"):
        assert found[metric] == pytest.approx((found[f"{metric}_age"] + found[f"{metric}_height"]) / 2)


def test_one_target_has_no_second_set_of_names_and_a_constant_one_no_r2():
    task = {"task": "regression", "class_names": ("age",)}
    assert set(evaluate((), VALUES[:, :1], TARGETS[:, :1], **task)) == {"mae", "rmse", "r2"}
    constant = np.full((50, 1), 3.0, np.float32)
    assert set(evaluate((), VALUES[:, :1], constant, **task)) == {"mae", "rmse"}
    assert evaluate((), VALUES[:, :1], np.full((50, 1), np.nan, np.float32), **task) == {}


def test_the_interval_of_the_mean_error_is_the_normal_ones():
    task = {"task": "regression", "class_names": ("age",)}
    errors = np.abs(VALUES[:, 0] - TARGETS[:, 0])
    low, high = bootstrap(("mae",), VALUES[:, :1], TARGETS[:, :1], **task, resamples=4000, seed=1)["mae"]
    half = 1.96 * errors.std() / np.sqrt(50)
    assert low == pytest.approx(errors.mean() - half, abs=0.2 * half)
    assert high == pytest.approx(errors.mean() + half, abs=0.2 * half)


def test_the_report_has_a_row_per_target():
    rows = report(VALUES, TARGETS, ("age", "height"))
    assert [(row["target"], row["known"]) for row in rows] == [("age", 50), ("height", 42)]
    assert rows[0]["mae"] == pytest.approx(evaluate((), VALUES, TARGETS, **TASK)["mae_age"])
