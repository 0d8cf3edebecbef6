import os
import resource

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from dpmed.errors import RunError
from dpmed.figures.style import PALETTE, lay_out, level_colours, new_figure, save_figure


def test_every_format_is_written_and_fonts_travel_along(tmp_path):
    figure, (axis,) = new_figure(width=2.0, height=2.0)
    axis.set(title="ε = 10")
    paths = save_figure(figure, tmp_path, "figure")
    assert [path.name for path in paths] == ["figure.png", "figure.pdf", "figure.svg"]
    starts = [path.read_bytes()[:5] for path in paths]
    assert starts == [b"\x89PNG\r", b"%PDF-", b"<?xml"]
    assert b"/FontFile2" in paths[1].read_bytes()  # TrueType, embedded
    assert b"<text" not in paths[2].read_bytes()  # drawn, so that no font is needed


@pytest.mark.parametrize("name", ["png", "svg", "pdf"])
def test_a_figure_that_the_disk_does_not_take_is_one_message(tmp_path, monkeypatch, name):
    figure, (axes,) = new_figure(width=2.0, height=2.0)
    axes.plot([0, 1], [0, 1])
    own = os.fdopen
    monkeypatch.setattr("dpmed.files.os.fdopen", lambda file, mode: own(file, mode, buffering=16))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit on the size of files stands for the full disk.
    for room in range(0, 2_000, 50):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            with pytest.raises(RunError, match=r"could not be written \(File too large\)"):
                save_figure(figure, tmp_path, "f", formats=[name])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not list(tmp_path.iterdir())


def test_the_same_figure_is_the_same_file(tmp_path):
    for name in ("a", "b"):
        figure, (axis,) = new_figure(width=2.0, height=2.0)
        axis.plot([0, 1], [0, 1], label="line")
        axis.legend()
        save_figure(figure, tmp_path, name, formats=("svg", "pdf"))
    for ending in ("svg", "pdf"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_parts_lie_where_matplotlib_would_put_them_in_drawing_all(tmp_path):
    def drawn():
        figure, axes = new_figure(width=5.0, height=2.0, columns=2)
        axes[0].plot([0, 1], [0, 1e5], label="line")
        axes[0].legend()
        axes[1].imshow(np.eye(3))
        axes[1].set(title="a title", ylabel="a name")
        return figure, axes

    (ours, _), (theirs, axes) = drawn(), drawn()
    before = [axis.get_position().bounds for axis in axes]
    theirs.set_dpi(160)
    theirs.draw_without_rendering()
    lay_out(ours, dots_per_inch=160)
    places = [axis.get_position().bounds for axis in axes]
    assert [axis.get_position().bounds for axis in ours.axes] == places != before


@pytest.mark.parametrize("private", [0, 1, 7])
def test_levels_go_from_dark_to_light_and_end_in_black(private):
    colours = level_colours(private, non_private=True)
    assert len(colours) == private + 1 and colours[-1] == PALETTE[-1]
    brightness = [np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722)) for colour in colours[:-1]]
    assert (np.diff(brightness) > 0).all()
    assert len(level_colours(private, non_private=False)) == private
