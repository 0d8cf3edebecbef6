from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dpmed.figures import gallery
from dpmed.figures.gallery import (
    Curve,
    GalleryRow,
    Panel,
    plot_gallery,
    plot_rero_curves,
    share_within,
    telling_slice,
    to_picture,
)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn, kept to look into."""
    figures = []

    def keep(figure, folder, stem, *, formats):
        figures.append(figure)
        return save(figure, folder, stem, formats=formats)

    save = gallery.save_figure
    monkeypatch.setattr(gallery, "save_figure", keep)
    return figures


def rows(shape=(6, 6)):
    random = np.random.default_rng(0)
    panels = [Panel(picture=random.random(shape), distance=0.125), Panel(picture=None, distance=None)]
    return [GalleryRow(title=f"0/{k}", original=random.random(shape), panels=panels) for k in range(3)]


@pytest.mark.parametrize("shape", [(6, 6), (6, 7, 3)])
def test_the_gallery_has_a_row_per_original_and_a_column_per_level(tmp_path, drawn, shape):
    paths = plot_gallery(rows(shape), ["$a$", "b"], metric="1 - SSIM", folder=tmp_path, formats=("png",))
    axes = drawn[0].axes
    assert len(axes) == 3 * 3
    assert [axis.get_title() for axis in axes[:3]] == ["original", "$a$", "b"]
    assert [axis.get_xlabel() for axis in axes[3:6]] == ["0/1", "0.125", "–"]
    assert [len(axis.images) for axis in axes[:3]] == [1, 1, 0]
    assert "nothing" in axes[2].texts[0].get_text()
    np.testing.assert_array_equal(axes[0].images[0].get_array(), rows(shape)[0].original)
    with Image.open(paths[0]) as image:
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10


def test_the_line_below_a_narrow_gallery_is_not_cut(tmp_path, drawn):
    one = [replace(row, panels=row.panels[:1]) for row in rows()]
    for some, labels in ((one, ["a"]), (rows(), ["a", "b"])):
        plot_gallery(some, labels, metric="1 − SSIM", folder=tmp_path, formats=("png",))
        around, inside = drawn[-1].bbox, drawn[-1]._supxlabel.get_window_extent()
        assert around.x0 <= inside.x0 and inside.x1 <= around.x1 and around.y0 <= inside.y0


def test_pictures_are_not_stretched_so_that_a_dark_one_stays_dark(tmp_path, drawn):
    plot_gallery(rows(), ["a", "b"], metric="x", folder=tmp_path, formats=("svg",))
    assert drawn[0].axes[0].images[0].get_clim() == (0, 1)


def test_curves_start_at_0_and_end_at_the_share_that_was_matched(tmp_path, drawn):
    curves = [
        Curve(label="a", is_private=True, distances=np.array([0.5, 0.25]), originals=4),
        Curve(label="none", is_private=True, distances=np.zeros(0), originals=4),
        Curve(label="free", is_private=False, distances=np.zeros(4), originals=4),
    ]
    paths = plot_rero_curves(
        curves, np.array([0.3, 0.4]), metric="x", thresholds=[0.1], folder=tmp_path, formats=("png", "pdf", "svg")
    )
    assert all(path.stat().st_size > 1000 for path in paths)
    lines = {line.get_label(): line.get_ydata() for line in drawn[0].axes[0].lines}
    assert lines["a"].tolist() == [0.0, 0.25, 0.5, 0.5]
    assert lines["none"].tolist() == [0.0, 0.0]
    assert lines["free"].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert lines["nearest other\noriginal"].tolist() == [0.0, 0.5, 1.0, 1.0]


def test_the_share_within_a_distance_is_the_empirical_distribution():
    x, y = share_within(np.array([0.3, 0.1, 0.2]), 5)
    assert x.tolist() == [0.1, 0.2, 0.3] and y.tolist() == [0.2, 0.4, 0.6]


def test_volumes_are_shown_by_the_slice_in_which_values_differ_most_with_the_front_up():
    volume = np.zeros((3, 4, 5, 1))
    volume[0, 3, 2] = 1.0  # left, front, third slice
    assert telling_slice(volume) == 2 and telling_slice(volume[..., 0, :]) == 0
    picture = to_picture(volume, 2)
    assert picture.shape == (4, 3) and picture[0, 2] == 1.0
