"""Bland-Altman: each sample at its mean and difference, lines where they were computed."""

import numpy as np

from dpmed.figures.agreement import AgreementPanel, plot_agreement
from tests.figures.seen import drawn


def test_dots_and_lines_are_where_they_belong(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    values, targets = np.array([3.0, 5.0]), np.array([1.0, 7.0])
    lines = [("upper limit", 4.0, (3.0, 5.0)), ("bias", 0.0, (np.nan, np.nan)), ("lower limit", -4.0, (-5.0, -3.0))]
    one = AgreementPanel(name="age", values=values, targets=targets, lines=lines)
    (path,) = plot_agreement([one], tmp_path)
    assert path.name == "agreement.png"
    axis = figures[0].axes[0]
    assert list(axis.lines[0].get_xdata()) == [2.0, 6.0] and list(axis.lines[0].get_ydata()) == [2.0, -2.0]
    assert [line.get_ydata()[0] for line in axis.lines[2:]] == [4.0, 0.0, -4.0]
    assert [text.get_text() for text in axis.texts] == ["upper limit\n+4", "bias\n+0", "lower limit\n−4"]
    # An interval that could not be computed is not drawn.
    assert len(axis.patches) == 2
