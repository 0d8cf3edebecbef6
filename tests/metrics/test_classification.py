"""Metrics of classification against scikit-learn, and resampling by counts against resampling samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from sklearn import metrics as sk

from dpmed.metrics import classification as class_metrics

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::sklearn.exceptions.UndefinedMetricWarning")


def draw(seed, outputs, count, classes=None):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, outputs)).astype(np.float32)
    return logits, rng.integers(0, classes or max(outputs, 2), count)


def draw_weights(count, resamples, seed=0):
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), outputs=st.sampled_from([1, 2, 3, 7]), count=st.integers(2, 60))
def test_metrics_of_choices_are_scikit_learns(seed, outputs, count):
    logits, targets = draw(seed, outputs, count)
    chosen = (logits[:, 0] > 0).astype(int) if outputs == 1 else logits.argmax(1)
    found = class_metrics.evaluate(("accuracy", "mcc", "balanced_accuracy", "f1"), logits, targets)
    assert found == pytest.approx(
        {
            "accuracy": sk.accuracy_score(targets, chosen),
            "mcc": sk.matthews_corrcoef(targets, chosen),
            "balanced_accuracy": sk.balanced_accuracy_score(targets, chosen),
            "f1": sk.f1_score(targets, chosen, average="macro", zero_division=0.0),
        }
    )


@pytest.mark.parametrize("seed", range(4))
def test_auroc_of_two_classes_is_scikit_learns_by_one_logit_or_by_two(seed):
    logits, targets = draw(seed, 1, 80)
    wanted = sk.roc_auc_score(targets, logits[:, 0])
    assert class_metrics.auroc(logits, targets) == pytest.approx(wanted)
    two = np.concatenate([0.3 - logits / 2, 0.3 + logits / 2], axis=1)
    assert class_metrics.auroc(two, targets) == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(4))
def test_auroc_of_several_classes_is_the_mean_of_one_against_the_rest(seed):
    logits, targets = draw(seed, 4, 90)
    chances = np.exp(np.float64(logits))
    chances /= chances.sum(axis=1, keepdims=True)
    wanted = sk.roc_auc_score(targets, chances, multi_class="ovr", average="macro")
    assert class_metrics.auroc(logits, targets) == pytest.approx(wanted, abs=1e-6)


def test_auroc_is_the_chance_that_a_positive_beats_a_negative():
    logits, targets = draw(5, 1, 50)
    positive, negative = logits[targets == 1, 0], logits[targets == 0, 0]
    pairs = np.sign(positive[:, None] - negative[None]) / 2 + 0.5
    assert class_metrics.auroc(logits, targets) == pytest.approx(pairs.mean())


def test_auroc_leaves_out_classes_that_do_not_occur():
    logits, targets = draw(6, 4, 90, classes=3)
    chances = np.exp(np.float64(logits))
    chances /= chances.sum(axis=1, keepdims=True)
    wanted = np.mean([sk.roc_auc_score(targets == label, chances[:, label]) for label in range(3)])
    assert class_metrics.auroc(logits, targets) == pytest.approx(wanted, abs=1e-6)
    assert np.isnan(class_metrics.auroc(logits, np.full(90, 2)))


def test_scores_that_are_no_numbers_have_no_auroc():
    logits, targets = draw(6, 2, 20)
    logits[3, 1] = np.nan
    assert np.isnan(class_metrics.auroc(logits, targets))


def test_large_logits_do_not_overflow():
    logits = np.array([[1e4, 0, 0], [0, 1e4, 0], [0, 0, 1e4]], np.float32)
    assert class_metrics.auroc(logits, np.arange(3)) == 1.0


@pytest.mark.parametrize(("outputs", "classes"), [(1, 2), (3, 3)])
def test_counting_samples_by_weights_is_drawing_them(outputs, classes):
    logits, targets = draw(7, outputs, 60)
    # Better than chance, so that all metrics have room on both sides.
    logits[np.arange(60), targets if outputs > 1 else 0] += np.where((targets > 0) | (outputs > 1), 1.0, -1.0)
    names = ("accuracy", "mcc", "balanced_accuracy", "f1")
    found = class_metrics.resample(names, logits, targets, weights=draw_weights(60, 700, seed=1))
    rng = np.random.default_rng(2)
    plain = {name: [] for name in names}
    for _ in range(700):
        rows = rng.integers(0, 60, 60)
        for name, value in class_metrics.evaluate(names, logits[rows], targets[rows]).items():
            plain[name].append(value)
    for name in names:
        values, wanted = found[name], np.array(plain[name])
        spread = wanted.std()
        # The mean of 700 draws is known to spread/26, the difference of two such to spread/19; five of those.
        assert values.mean() == pytest.approx(wanted.mean(), abs=0.27 * spread)
        assert values.std() == pytest.approx(spread, rel=0.15)
        for quantile in (0.025, 0.975):
            assert np.quantile(values, quantile) == pytest.approx(np.quantile(wanted, quantile), abs=0.6 * spread)
        assert ks_2samp(values, wanted).pvalue > 1e-4


def test_resampled_auroc_is_spread_about_the_point():
    logits, targets = draw(8, 3, 120)
    logits[np.arange(120), targets] += 1.0
    draws = class_metrics.resample(("auroc",), logits, targets, weights=draw_weights(120, 200))
    point = class_metrics.auroc(logits, targets)
    assert draws["auroc"].mean() == pytest.approx(point, abs=0.01)
    assert 0.005 < draws["auroc"].std() < 0.1


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_auroc_of_weights_is_that_of_samples_repeated(outputs):
    logits, targets = draw(11, outputs, 50)
    logits = np.round(logits, 1)  # ties
    curves = class_metrics._curves(logits, targets)
    weights = draw_weights(50, 20, seed=3)
    areas = [class_metrics.weighted_auroc(scores, is_positive, weights) for scores, is_positive in curves]
    found = np.mean(areas, axis=0)
    repeated = [np.repeat(np.arange(50), row) for row in weights]
    wanted = [
        np.mean([sk.roc_auc_score(is_positive[rows], scores[rows]) for scores, is_positive in curves])
        for rows in repeated
    ]
    np.testing.assert_allclose(found, wanted)
    # A single class has no curve.
    scores, is_positive = curves[-1]
    assert np.isnan(class_metrics.weighted_auroc(scores, is_positive, is_positive[None].astype(int))).all()


def test_too_many_scores_have_no_interval_of_auroc():
    logits, targets = np.zeros((350_000, 3), np.float32), np.arange(350_000) % 3
    draws = class_metrics.resample(("auroc",), logits, targets, weights=draw_weights(350_000, 5))
    assert draws == {}


def test_the_report_is_scikit_learns():
    logits, targets = draw(9, 4, 70, classes=3)
    names = ("a", "b", "c", "d")
    rows = class_metrics.report(logits, targets, names)
    wanted = sk.classification_report(
        targets, logits.argmax(1), labels=range(4), target_names=names, output_dict=True, zero_division=0.0
    )
    for row in rows:
        known = wanted[row["class"]]
        assert row["precision"] == pytest.approx(known["precision"])
        assert row["recall"] == pytest.approx(known["recall"])
        assert row["f1"] == pytest.approx(known["f1-score"])
        assert row["samples"] == known["support"]
    assert [row["samples"] for row in rows] == np.bincount(targets, minlength=4).tolist()


def test_the_confusion_matrix_counts_pairs():
    logits, targets = draw(10, 3, 40)
    table = class_metrics.confusion(logits, targets, classes=3)
    wanted = np.zeros((3, 3), int)
    for target, choice in zip(targets, logits.argmax(1), strict=True):
        wanted[target, choice] += 1
    np.testing.assert_array_equal(table, wanted)
