"""Figures as they are when they are saved."""

from matplotlib.figure import Figure


def drawn(monkeypatch):
    """A list to which each figure is added that is saved from now on."""
    figures = []
    before = Figure.draw_without_rendering
    monkeypatch.setattr(Figure, "draw_without_rendering", lambda self: (figures.append(self), before(self))[1])
    return figures
