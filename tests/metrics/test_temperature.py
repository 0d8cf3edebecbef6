"""The temperature against a fine grid, the truth it was drawn with, and scikit-learn's log loss."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import log_loss

from dpmed.metrics.temperature import HIGHEST, LOWEST, fit_temperature, mean_log_loss


def drawn(seed, truth, *, kind, count=3000):
    """Targets that follow the logits / truth."""
    generator = np.random.default_rng(seed)
    logits = generator.standard_normal((count, 1 if kind == "single" else 3)).astype(np.float32) * 3
    if kind == "classes":
        chances = softmax(logits / truth, axis=1)
        return logits, (generator.random((count, 1)) > np.cumsum(chances, axis=1)).sum(axis=1).clip(max=2)
    yes = (generator.random(logits.shape) < expit(logits / truth)).astype(np.int8)
    return logits, yes[:, 0].astype(np.int32) if kind == "single" else yes


@pytest.mark.parametrize(
    ("kind", "task"), [("classes", "classification"), ("single", "classification"), ("labels", "multi-label")]
)
@pytest.mark.parametrize("truth", [0.5, 2.5])
def test_the_temperature_is_the_minimum_and_near_what_made_the_data(kind, task, truth):
    logits, targets = drawn(1, truth, kind=kind)
    found = fit_temperature(logits, targets, task=task)
    assert found == pytest.approx(truth, rel=0.1)
    best = mean_log_loss(logits, targets, task=task, temperature=found)
    for other in np.geomspace(LOWEST, HIGHEST, 301):
        assert mean_log_loss(logits, targets, task=task, temperature=float(other)) >= best - 1e-12


def test_the_loss_is_scikit_learns():
    logits, targets = drawn(2, 1.0, kind="classes", count=200)
    wanted = log_loss(targets, softmax(logits.astype(np.float64) / 1.7, axis=1), labels=[0, 1, 2])
    assert mean_log_loss(logits, targets, task="classification", temperature=1.7) == pytest.approx(wanted)
    logits, targets = drawn(2, 1.0, kind="single", count=200)
    wanted = log_loss(targets, expit(logits[:, 0].astype(np.float64)), labels=[0, 1])
    assert mean_log_loss(logits, targets, task="classification") == pytest.approx(wanted)


def test_unknown_labels_count_nowhere():
    logits, targets = drawn(3, 2.0, kind="labels", count=500)
    unknown = targets.copy()
    unknown[::3, 1] = -1
    moved = logits.copy()
    moved[::3, 1] = 50.0
    assert fit_temperature(logits, unknown, task="multi-label") == fit_temperature(moved, unknown, task="multi-label")
    with pytest.raises(ValueError, match="known"):
        fit_temperature(logits, np.full_like(targets, -1), task="multi-label")


def test_huge_logits_are_no_overflow_and_a_perfect_model_ends_at_the_lowest():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    assert mean_log_loss(logits, np.array([1, 0]), task="classification") == pytest.approx(2e4)
    # Below it the loss is zero in floating point.
    assert LOWEST <= fit_temperature(logits / 1e4, np.array([0, 1]), task="classification") < 0.05
