"""The confusion matrix: counts where they can be read, on a colour that shows them."""

import numpy as np

from dpmed.figures.confusion import plot_confusion
from tests.figures.seen import drawn


def test_counts_stand_in_their_cells_and_shares_are_of_the_true_class(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    table = np.array([[6, 2], [0, 5]])
    plot_confusion(table, ("benign", "malignant"), tmp_path, title="13 patients")
    axis = figures[0].axes[0]
    assert axis.get_title() == "13 patients"
    cells = {(round(text.get_position()[1]), round(text.get_position()[0])): text for text in axis.texts}
    assert {place: int(text.get_text()) for place, text in cells.items()} == dict(np.ndenumerate(table))
    np.testing.assert_allclose(axis.images[0].get_array(), [[0.75, 0.25], [0.0, 1.0]])
    assert (cells[0, 1].get_color(), cells[1, 1].get_color()) == ("white", "black")


def test_a_class_that_never_occurs_and_many_classes_are_drawn(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    plot_confusion(np.array([[0, 0], [1, 2]]), ("a", "b"), tmp_path)
    assert np.isfinite(figures[0].axes[0].images[0].get_array()).all()
    plot_confusion(np.eye(30, dtype=int), [str(number) for number in range(30)], tmp_path)
    assert not figures[1].axes[0].texts
