"""Metrics of each task by name, and what bootstrap intervals hold."""

import numpy as np
import pytest

from dpmed.errors import InputError
from dpmed.metrics import images as image_metrics
from dpmed.metrics import segmentation as mask_metrics
from dpmed.metrics.evaluate import (
    bootstrap,
    by_sample,
    check_metrics,
    evaluate,
    main_metric,
    metric_names,
    missing_notes,
    thin_metrics,
)

CLASSIFICATION = {"task": "classification", "class_names": ("a", "b")}
SEGMENTATION = {"task": "segmentation", "class_names": ("background", "organ", "tumour")}
RECONSTRUCTION = {"task": "reconstruction", "class_names": ()}
RNG = np.random.default_rng(0)


def masks(count=6, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, (2, count, 4, 5)).astype(np.uint8)


def test_every_task_has_its_metrics_and_is_judged_by_one_of_them():
    for task in ("classification", "multi-label", "regression", "segmentation", "reconstruction"):
        assert main_metric(task) in metric_names(task)
        check_metrics((), None, task=task)
        check_metrics(metric_names(task)[:1], "loss", task=task)


@pytest.mark.parametrize(
    ("names", "main", "task", "words"),
    [
        (("dice",), None, "classification", r"evaluation\.metrics.*'dice' is unknown.*mcc"),
        (("accuracy",), None, "segmentation", "valid: dice"),
        (("accuracy",), "mcc", "classification", r"evaluation\.main_metric.*'mcc' is not among"),
        ((), "dice", "reconstruction", "psnr"),
    ],
)
def test_metrics_that_a_task_does_not_have_are_refused(names, main, task, words):
    with pytest.raises(InputError, match=words):
        check_metrics(names, main, task=task)


def test_a_metric_that_is_not_defined_is_left_out():
    logits, targets = RNG.normal(size=(5, 1)).astype(np.float32), np.ones(5, np.int64)
    found = evaluate((), logits, targets, **CLASSIFICATION)
    assert "auroc" not in found
    assert {"accuracy", "mcc", "f1", "balanced_accuracy"} <= set(found)
    empty = np.zeros((3, 4, 4), np.uint8)
    scores = evaluate((), empty, empty, **SEGMENTATION)
    assert scores == {"dice_with_background": 1.0, "dice_background": 1.0}


def test_scores_of_masks_are_means_over_the_masks_where_they_are_defined():
    predicted, targets = masks()
    predicted[0][predicted[0] == 2] = 0
    targets[0][targets[0] == 2] = 0
    table = mask_metrics.by_sample(("dice",), predicted, targets, class_names=SEGMENTATION["class_names"])
    assert np.isnan(table["dice_tumour"][0])
    found = evaluate(("dice",), predicted, targets, **SEGMENTATION)
    assert found["dice_tumour"] == pytest.approx(np.mean(table["dice_tumour"][1:]))
    assert found["dice"] == pytest.approx(np.mean(table["dice"]))
    assert set(found) == {"dice", "dice_background", "dice_organ", "dice_tumour"}


def test_scores_of_images_are_means_over_the_images():
    images, targets = RNG.normal(size=(2, 4, 12, 12, 1)).astype(np.float32)
    table = image_metrics.by_sample(("mse", "psnr", "ssim"), images, targets)
    found = evaluate((), images, targets, **RECONSTRUCTION)
    assert found == pytest.approx({name: values.mean() for name, values in table.items()})
    each = by_sample((), images, targets, **RECONSTRUCTION)
    assert {name: len(values) for name, values in each.items()} == {"mse": 4, "psnr": 4, "ssim": 4}


def noisy_choices(count, seed, hits=0.8):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, count)
    return np.where(rng.random(count) < hits, targets, 1 - targets)[:, None].astype(np.float32) - 0.5, targets


def test_intervals_hold_the_point_and_shrink_with_data():
    widths = []
    for count in (50, 2000):
        logits, targets = noisy_choices(count, 0)
        low, high = bootstrap(("accuracy",), logits, targets, resamples=200, seed=1, **CLASSIFICATION)["accuracy"]
        assert low <= evaluate(("accuracy",), logits, targets, **CLASSIFICATION)["accuracy"] <= high
        widths.append(high - low)
    assert widths[1] < 0.3 * widths[0]


def test_an_interval_of_accuracy_is_the_binomials():
    logits, targets = noisy_choices(400, 3)
    share = evaluate(("accuracy",), logits, targets, **CLASSIFICATION)["accuracy"]
    low, high = bootstrap(("accuracy",), logits, targets, resamples=4000, seed=1, **CLASSIFICATION)["accuracy"]
    half = 1.96 * np.sqrt(share * (1 - share) / 400)
    assert low == pytest.approx(share - half, abs=0.006)
    assert high == pytest.approx(share + half, abs=0.006)


def test_intervals_of_masks_are_those_of_resampled_means():
    predicted, targets = masks(count=30, seed=4)
    values = by_sample((), predicted, targets, **SEGMENTATION)["dice"]
    rng = np.random.default_rng(9)
    means = [np.mean(rng.choice(values, len(values))) for _ in range(4000)]
    low, high = bootstrap(("dice",), predicted, targets, resamples=4000, seed=1, **SEGMENTATION)["dice"]
    tolerance = 0.15 * np.std(means)
    assert low == pytest.approx(np.quantile(means, 0.025), abs=tolerance)
    assert high == pytest.approx(np.quantile(means, 0.975), abs=tolerance)


def test_no_resamples_or_no_samples_give_no_interval():
    logits, targets = noisy_choices(20, 0)
    assert bootstrap(("accuracy",), logits, targets, resamples=0, seed=1, **CLASSIFICATION) == {}
    assert bootstrap(("accuracy",), logits[:0], targets[:0], resamples=9, seed=1, **CLASSIFICATION) == {}


def test_fewer_than_ten_units_have_no_interval_however_many_samples():
    logits, targets = noisy_choices(40, 0)
    nine, ten = [str(number % 9) for number in range(40)], [str(number % 10) for number in range(40)]
    shared = {"resamples": 9, "seed": 1, **CLASSIFICATION}
    assert bootstrap(("accuracy",), logits, targets, groups=nine, **shared) == {}
    assert set(bootstrap(("accuracy",), logits, targets, groups=ten, **shared)) == {"accuracy"}
    assert bootstrap(("accuracy",), logits[:9], targets[:9], **shared) == {}


def test_flawless_predictions_have_no_interval_of_no_width():
    logits, targets = np.eye(2, dtype=np.float32)[[0, 1] * 10], np.array([0, 1] * 10)
    facts = {"task": "classification", "class_names": ("a", "b"), "resamples": 50, "seed": 0}
    assert "accuracy" not in bootstrap(("accuracy",), logits, targets, **facts)
    targets[0] = 1
    low, high = bootstrap(("accuracy",), logits, targets, **facts)["accuracy"]
    assert low < 0.95 <= high


def test_what_an_interval_of_no_width_would_hide_is_said():
    same = "No interval for accuracy: every resample of the 59 patients gives the same value."
    facts = {"units": 59, "unit": "patient"}
    assert missing_notes({"accuracy": 1.0, "loss": 0.1}, {}, **facts) == (
        f"{same} An error rate of up to 5 % is still compatible with flawless answers (95 %).",
    )
    assert missing_notes({"accuracy": 0.1, "loss": 0.1}, {}, **facts) == (same,)
    assert missing_notes({"accuracy": 1.0}, {"accuracy": (0.9, 1.0)}, **facts) == ()
    few = missing_notes({"accuracy": 1.0}, {}, units=9, unit="patient")
    assert few == (), "too few, which is said elsewhere"


def test_a_perfect_ranking_is_no_flawless_answer():
    """All positives above all negatives, and yet half of the answers wrong: nothing follows about the error rate."""
    (note,) = missing_notes({"accuracy": 0.5, "auroc": 1.0}, {"accuracy": (0.4, 0.6)}, units=59, unit="patient")
    assert note == "No interval for auroc: every resample of the 59 patients gives the same value."


def test_metrics_of_a_rare_class_have_no_interval_and_that_is_said():
    targets = (np.arange(100) < 3).astype(np.int64)
    logits = np.stack([np.zeros(100), RNG.normal(size=100) + targets], axis=1)
    found = bootstrap((), logits, targets, resamples=50, seed=1, **CLASSIFICATION)
    assert set(found) == {"accuracy"}
    groups = [str(number) for number in range(100)]
    few = thin_metrics(logits, targets, groups, **CLASSIFICATION)
    values = evaluate((), logits, targets, **CLASSIFICATION)
    assert missing_notes(values, found, units=100, unit="patient", few=few) == (
        "No interval for mcc, balanced_accuracy, f1, auroc: fewer than 10 patients have one of the classes or values "
        "that are compared.",
    )


def test_a_class_in_few_scans_has_no_interval_of_its_dice():
    predicted, targets = masks(count=30, classes=2)
    targets[:4] = 2
    predicted[:4, 0] = 2
    found = bootstrap((), predicted, targets, resamples=50, seed=1, **SEGMENTATION)
    assert set(found) == {"dice", "dice_with_background", "dice_background", "dice_organ"}


def test_intervals_are_the_seeds():
    logits, targets = noisy_choices(60, 0)
    first, again, other = (
        bootstrap((), logits, targets, resamples=50, seed=seed, **CLASSIFICATION) for seed in (1, 1, 2)
    )
    assert first == again != other
