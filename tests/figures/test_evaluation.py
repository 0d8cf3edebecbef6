"""Curves and calibration: as many lines as questions, counts that add up, and nothing for one-sided data."""

import numpy as np

from dpmed.figures.evaluation import Question, plot_calibration, plot_thresholds
from dpmed.metrics import operating
from tests.figures.seen import drawn


def question(number, *, positive=None):
    generator = np.random.default_rng(number)
    probability = generator.random(80)
    truth = generator.random(80) < probability if positive is None else np.full(80, positive)
    bins = operating.calibration(probability, truth)
    points = [(one.mean_probability, one.share_positive, one.interval) for one in bins]
    return Question(name=f"finding {number}", probability=probability, positive=truth, bins=points)


def test_a_single_question_has_its_curve_and_the_share_of_positives(tmp_path, monkeypatch):
    figures, one = drawn(monkeypatch), question(1)
    (path,) = plot_thresholds([one], tmp_path)
    assert path.name == "roc.png" and path.stat().st_size > 1000
    roc, pr = figures[0].axes
    sensitivity = np.asarray(roc.lines[0].get_ydata())
    assert (np.diff(sensitivity) >= 0).all() and sensitivity[-1] == 1
    assert pr.lines[-1].get_ydata()[0] == one.positive.mean()


def test_many_questions_say_how_many_are_shown_and_one_sided_ones_are_left_out(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    plot_thresholds([question(0, positive=True), *(question(number) for number in range(1, 10))], tmp_path)
    assert figures[0].axes[0].get_title() == "ROC, 7 of 9"
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == [f"finding {n}" for n in range(1, 8)]
    assert plot_thresholds([question(0, positive=False)], tmp_path)


def test_calibration_shows_intervals_of_one_and_counts_of_all(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    plot_calibration([question(1)], tmp_path)
    plot_calibration([question(1), question(2)], tmp_path)
    alone, together = figures
    assert alone.axes[0].containers and not together.axes[0].containers
    outline = alone.axes[1].patches[0].get_xy()
    assert outline[:, 1].max() == np.histogram(question(1).probability, 20, (0, 1))[0].max()
    assert len(together.axes[1].patches) == 2
