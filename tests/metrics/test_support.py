"""How many units each metric rests on, counted by hand, and what intervals of too few would hold."""

import numpy as np
import pytest
from scipy.stats import norm

from dpmed.metrics.classification import weighted_auroc
from dpmed.metrics.evaluate import draw_units, interval_of
from dpmed.metrics.support import FEWEST_UNITS, support, table_support, thin


def test_metrics_of_classes_rest_on_the_units_of_the_rarest_class_that_occurs():
    # Three patients with class 0, two with class 2 (one of them twice), none with class 1.
    targets, groups = np.array([0, 0, 0, 0, 2, 2, 2]), ["a", "b", "c", "c", "c", "d", "d"]
    found = support(targets, groups, task="classification", class_names=("x", "y", "z"))
    assert {found[name] for name in ("accuracy", "brier")} == {4}
    assert {found[name] for name in ("mcc", "balanced_accuracy", "f1", "auroc", "auprc")} == {2}
    # Of three classes that occur, each has a third of the weight: the rarest counts twice.
    targets[0] = 1
    assert support(targets, groups, task="classification", class_names=("x", "y", "z"))["mcc"] == 2 * 1
    assert support(targets[:1], ["a"], task="classification", class_names=("x", "y"))["balanced_accuracy"] == 1


def test_a_label_rests_on_its_rarer_side_and_the_mean_on_the_rarest_with_both():
    targets = np.array([[1, 1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 0], [-1, 0, 0]], np.int8)
    groups = ["a", "b", "c", "c", "d"]
    found = support(targets, groups, task="multi-label", class_names=("x", "y", "z"))
    assert (found["auroc_x"], found["auroc_y"], found["auroc_z"]) == (1, 2, 0)
    assert found["auroc"] == 2, "of the two labels with both sides, the rarer twice"
    assert found["brier"] == 3, "of x, patient d is unknown"


def test_numbers_and_masks_rest_on_the_units_where_they_are_known():
    targets = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, 1.0]])
    found = support(targets, ["a", "a", "b"], task="regression", class_names=("age", "weight"))
    assert (found["mae_age"], found["r2_weight"], found["rmse"]) == (2, 1, 2)
    table = {"dice": np.array([0.5, 0.6, 0.7]), "dice_tumour": np.array([np.nan, 0.6, 0.7])}
    assert table_support(table, ["a", "b", "b"]) == {"dice": 2, "dice_tumour": 1}
    assert thin({"dice": FEWEST_UNITS, "dice_tumour": FEWEST_UNITS - 1}) == {"dice_tumour"}


@pytest.mark.parametrize(("positives", "least", "most"), [(1, 0.0, 0.5), (3, 0.5, 0.85), (30, 0.9, 1.0)])
def test_intervals_of_few_positives_would_hold_the_truth_far_too_rarely(positives, least, most):
    generator, held = np.random.default_rng(4), 0
    is_positive, groups = np.arange(100) < positives, [str(number) for number in range(100)]
    for _ in range(100):
        # Scores with an AUROC of 0.85.
        scores = generator.normal(size=100) + np.sqrt(2) * norm.ppf(0.85) * is_positive

        def measure(weights, scores=scores):
            return {"auroc": weighted_auroc(scores, is_positive, weights)}

        low, high = interval_of(draw_units(groups, measure, resamples=200)["auroc"])
        held += low <= 0.85 <= high
    assert least <= held / 100 <= most
