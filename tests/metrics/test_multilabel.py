"""Several labels against scikit-learn; what is unknown counts nowhere."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dpmed.metrics.evaluate import bootstrap, evaluate
from dpmed.metrics.multilabel import report

RNG = np.random.default_rng(0)
NAMES = ("a", "b", "c")
LOGITS = RNG.normal(size=(60, 3)).astype(np.float32).round(1)  # rounded, so that there are ties
TARGETS = RNG.integers(-1, 2, (60, 3))
TASK = {"task": "multi-label", "class_names": NAMES}


def test_auroc_of_each_label_is_scikit_learns_over_what_is_known():
    found = evaluate((), LOGITS, TARGETS, **TASK)
    wanted = {}
    for number, name in enumerate(NAMES):
        known = TARGETS[:, number] >= 0
        wanted[f"auroc_{name}"] = roc_auc_score(TARGETS[known, number], LOGITS[known, number])
    assert found == pytest.approx({**wanted, "auroc": np.mean(list(wanted.values()))})


def test_what_is_unknown_may_be_predicted_in_any_way():
    other = np.where(TARGETS < 0, RNG.normal(size=LOGITS.shape) * 100, LOGITS).astype(np.float32)
    assert evaluate((), other, TARGETS, **TASK) == evaluate((), LOGITS, TARGETS, **TASK)


def test_a_label_with_one_side_only_is_left_out_of_the_mean():
    targets = TARGETS.copy()
    targets[targets[:, 1] == 1, 1] = -1
    found = evaluate((), LOGITS, targets, **TASK)
    assert "auroc_b" not in found
    assert found["auroc"] == pytest.approx((found["auroc_a"] + found["auroc_c"]) / 2)
    assert evaluate((), LOGITS, np.full_like(TARGETS, -1), **TASK) == {}


def test_the_interval_is_that_of_samples_drawn_again_one_by_one():
    rng = np.random.default_rng(3)
    draws = []
    for _ in range(600):
        rows = rng.integers(0, 60, 60)
        draws.append(evaluate((), LOGITS[rows], TARGETS[rows], **TASK)["auroc"])
    low, high = bootstrap((), LOGITS, TARGETS, **TASK, resamples=600, seed=1)["auroc"]
    # 600 draws tell the ends of an interval to about a tenth of its width.
    tolerance = 0.15 * (high - low)
    assert low == pytest.approx(np.quantile(draws, 0.025), abs=tolerance)
    assert high == pytest.approx(np.quantile(draws, 0.975), abs=tolerance)


def test_the_report_counts_every_sample_of_every_label():
    rows = report(LOGITS, TARGETS, NAMES)
    assert [row["label"] for row in rows] == list(NAMES)
    for number, row in enumerate(rows):
        assert row["positive"] == (TARGETS[:, number] == 1).sum()
        assert row["positive"] + row["negative"] + row["unknown"] == 60
    assert report(LOGITS, np.zeros_like(TARGETS), NAMES)[0]["auroc"] is None
