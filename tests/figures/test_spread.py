"""Figures of several runs and of the confusion matrix: there, with as many panels and numbers as there is data."""

import numpy as np

from dpmed.figures.confusion import plot_confusion
from dpmed.figures.spread import plot_seeds, plot_sweep
from tests.figures.seen import drawn


def test_seeds_have_a_panel_per_metric(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    paths = plot_seeds({"accuracy": [0.5, 0.6, 0.7], "mcc": [0.1, 0.2, 0.3], "loss": [1.0, 2.0, 3.0]}, tmp_path)
    assert len(figures[0].axes) == 3
    # Below the panels, since in one of them it would cover dots.
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["a run", "mean ± standard deviation"]
    assert all(axis.get_legend() is None for axis in figures[0].axes)
    assert all(path.stat().st_size > 1000 for path in paths)
    assert plot_seeds({"accuracy": [0.5]}, tmp_path)


def test_a_sweep_draws_every_run_and_the_line_without_privacy(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    plot_sweep([(8.0, [0.8, 0.9]), (1.0, [0.6, 0.7])], [0.95, 0.97], tmp_path, metric="accuracy", title="digits")
    labels = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
    assert set(labels) == {"with privacy (mean ± standard deviation of 2 runs)", "without privacy"}
    figures[0].canvas.draw()
    assert [text.get_text() for text in figures[0].axes[0].get_xticklabels()] == ["1", "8"]
    assert plot_sweep([(8.0, [0.8])], [], tmp_path, metric="accuracy", title="digits")


def test_a_confusion_matrix_shows_its_counts(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    (path,) = plot_confusion(np.array([[5, 1], [0, 7]]), ("yes", "no"), tmp_path)
    assert {text.get_text() for text in figures[0].axes[0].texts} == {"5", "1", "0", "7"}
    assert path.stat().st_size > 1000
    assert plot_confusion(np.eye(30, dtype=np.int64), [str(n) for n in range(30)], tmp_path)


def test_budgets_that_lie_close_do_not_write_over_each_other(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    levels = [(float(epsilon), [0.5]) for epsilon in (1, 1.01, 2, 3, 8, 7.99, 100)]
    plot_sweep(levels, [], tmp_path, metric="accuracy", title="digits")
    figures[0].canvas.draw()
    assert [text.get_text() for text in figures[0].axes[0].get_xticklabels()] == ["1", "2", "3", "7.99", "100"]
