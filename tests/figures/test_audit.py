import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from dpmed.figures import audit as room
from dpmed.figures.audit import Bar, plot_audit

ABOVE = tuple(int(room.PALETTE[1][place : place + 2], 16) for place in (1, 3, 5))
BELOW = tuple(int(room.PALETTE[0][place : place + 2], 16) for place in (1, 3, 5))


def drawn(folder, monkeypatch, *bars, claimed=8.0):
    kept: list[Figure] = []
    real = room.save_figure
    monkeypatch.setattr(room, "save_figure", lambda figure, *place: kept.append(figure) or real(figure, *place))
    folder.mkdir()
    paths = plot_audit(bars, folder, claimed=claimed, confidence=0.95, delta=1e-5)
    assert {path.suffix for path in paths} == {".png", ".pdf", ".svg"}
    pixels = np.asarray(Image.open(folder / "audit.png").convert("RGB")).reshape(-1, 3)
    return kept[-1], {tuple(pixel) for pixel in np.unique(pixels, axis=0).tolist()}


def test_bars_end_at_the_limits_and_the_line_is_the_claim(tmp_path, monkeypatch):
    bars = Bar(name="gradient canaries", lower=3.4, best=4.2), Bar(name="input canaries", lower=0.0, best=None)
    figure, colours = drawn(tmp_path / "a", monkeypatch, *bars)
    axis = figure.axes[0]
    assert [patch.get_width() for patch in axis.patches] == [3.4, 0.0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "gradient canaries\nε ≥ 3.4", "input canaries\nε ≥ 0",
    ]  # fmt: skip
    claim = axis.lines[-1]
    assert list(claim.get_xdata()) == [8.0, 8.0] and axis.get_xlim()[1] > 8
    assert "Nothing contradicts" in figure.get_suptitle()
    assert "jointly with 95 % confidence" in axis.get_xlabel()
    assert BELOW in colours and ABOVE not in colours


def test_a_limit_of_zero_is_called_nothing_found(tmp_path, monkeypatch):
    figure, _ = drawn(tmp_path / "c", monkeypatch, Bar(name="input canaries", lower=0.0, best=None))
    assert "Nothing contradicts the claim: no test found anything, claimed ε ≤ 8" in figure.get_suptitle()


def test_a_limit_above_the_claim_stands_out(tmp_path, monkeypatch):
    figure, colours = drawn(tmp_path / "b", monkeypatch, Bar(name="gradient canaries", lower=21.0, best=30.0))
    assert "does not hold: ε is at least 21, not at most 8" in figure.get_suptitle()
    assert figure.axes[0].get_xlim()[1] > 30
    assert ABOVE in colours and BELOW not in colours
