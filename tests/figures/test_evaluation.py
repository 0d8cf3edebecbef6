"""Curves and calibration: as many lines as questions, counts that add up, and nothing for one-sided data."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dpmed.figures.evaluation import Bin, Question, plot_calibration, plot_thresholds
from dpmed.metrics import operating
from tests.figures.seen import drawn


def question(number, *, positive=None):
    generator = np.random.default_rng(number)
    probability = generator.random(80)
    truth = generator.random(80) < probability if positive is None else np.full(80, positive)
    bins = operating.calibration(probability, truth)
    known = [
        Bin(predicted=one.mean_probability, seen=one.share_positive, interval=one.interval, samples=one.samples)
        for one in bins
    ]
    area = float("nan") if positive is not None else float(roc_auc_score(truth, probability))
    return Question(name=f"finding {number}", probability=probability, positive=truth, bins=known, auroc=area)


def test_a_single_question_has_its_curve_and_the_share_of_positives(tmp_path, monkeypatch):
    figures, one = drawn(monkeypatch), question(1)
    (path,) = plot_thresholds([one], tmp_path)
    assert path.name == "roc.png" and path.stat().st_size > 1000
    roc, pr = figures[0].axes
    sensitivity = np.asarray(roc.lines[0].get_ydata())
    assert (np.diff(sensitivity) >= 0).all() and sensitivity[-1] == 1
    assert pr.lines[-1].get_ydata()[0] == one.positive.mean()


def test_of_many_questions_the_worst_are_shown_and_the_others_named(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    # The last is the worst, which a figure of the first seven would hide.
    known = [replace(question(number), auroc=1.0 - number / 100) for number in range(1, 10)]
    plot_thresholds([question(0, positive=True), *known], tmp_path)
    plot_calibration([question(0, positive=True), *known], tmp_path)
    for figure in figures:
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == [
            f"finding {number} ({1.0 - number / 100:.3f})" for number in range(3, 10)
        ]
        assert "finding 1, finding 2" in legend.get_title().get_text().replace("\n", " ")
    assert plot_thresholds([question(0, positive=False)], tmp_path)


@pytest.mark.parametrize("name", ["cardiomegaly", "a class with a name that is far longer than a figure is wide"])
def test_no_name_is_cut_however_long(tmp_path, monkeypatch, name):
    figures = drawn(monkeypatch)
    known = [replace(question(number), name=f"{name} {number}") for number in range(1, 9)]
    plot_thresholds(known, tmp_path)
    plot_calibration(known, tmp_path)
    for figure in figures:
        (legend,) = figure.legends
        around, inside = figure.bbox, legend.get_window_extent()
        assert around.x0 <= inside.x0 and inside.x1 <= around.x1 and around.y0 <= inside.y0
        # The figure grows for it: the axes keep their height.
        assert figure.axes[0].get_window_extent().height > 250


def test_bins_of_few_samples_are_hollow_and_not_joined(tmp_path, monkeypatch):
    figures, one = drawn(monkeypatch), question(1)
    assert {each.samples >= 10 for each in one.bins} == {True, False}
    plot_calibration([one], tmp_path)
    joined, apart = figures[0].axes[0].lines[1:3]
    assert np.isfinite(joined.get_ydata()).tolist() == [each.samples >= 10 for each in one.bins]
    assert list(apart.get_xdata()) == [each.predicted for each in one.bins if each.samples < 10]
    assert apart.get_linestyle() == "None" and apart.get_markerfacecolor() == "white"


def test_calibration_shows_intervals_of_one_and_counts_of_all(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    plot_calibration([question(1)], tmp_path)
    plot_calibration([question(1), question(2)], tmp_path)
    alone, together = figures
    assert alone.axes[0].containers and not together.axes[0].containers
    outline = alone.axes[1].patches[0].get_xy()
    assert outline[:, 1].max() == np.histogram(question(1).probability, 20, (0, 1))[0].max()
    assert len(together.axes[1].patches) == 2
