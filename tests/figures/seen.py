"""Figures as they are when they are saved."""

from dpmed.figures import style


def drawn(monkeypatch):
    """A list to which each figure is added that is saved from now on."""
    figures = []
    before = style.lay_out
    monkeypatch.setattr(style, "lay_out", lambda figure, **how: (figures.append(figure), before(figure, **how))[1])
    return figures
