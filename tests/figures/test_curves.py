"""The curves of a run: which panels there are, and that single evaluations are seen."""

from dpmed.figures.curves import plot_curves
from tests.figures.seen import drawn

ROWS = [
    {"step": 10, "split": "train", "loss": 2.0},
    {"step": 10, "split": "validation", "loss": 2.1, "accuracy": 0.4, "epsilon": 1.0},
    {"step": 20, "split": "validation", "loss": 1.1, "accuracy": None, "epsilon": 1.5},
    {"step": 20, "split": "test", "loss": 1.2, "accuracy": 0.5, "epsilon": 1.5},
]


def test_epsilon_has_a_panel_with_the_budget_and_starts_at_zero(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    (path,) = plot_curves(ROWS, tmp_path, metric="accuracy", epsilon_planned=3.0)
    assert path.name == "curves.png"
    loss, metric, epsilon = figures[0].axes
    assert [list(line.get_xdata()) for line in loss.lines] == [[10], [10, 20]]
    assert list(metric.lines[0].get_ydata()) == [0.4] and metric.lines[0].get_marker() == "."
    assert list(epsilon.lines[0].get_ydata()) == [1.0, 1.5]
    assert epsilon.lines[1].get_ydata()[0] == 3.0 and epsilon.get_ylim()[0] == 0


def test_without_privacy_there_is_no_such_panel(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    plot_curves([{**row, "epsilon": None} for row in ROWS], tmp_path, metric="accuracy", epsilon_planned=None)
    assert [axis.get_title() for axis in figures[0].axes] == ["loss", "accuracy"]
    labels = [text.get_text() for text in figures[0].axes[1].get_legend().get_texts()]
    assert labels == ["validation", "test"]
