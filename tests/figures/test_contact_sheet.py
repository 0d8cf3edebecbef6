import numpy as np
import pytest
from PIL import Image

from dpmed.figures import contact_sheet
from dpmed.figures.contact_sheet import Overlay, plot_contact_sheet, to_picture

GREY = (np.zeros(1, np.float32), np.ones(1, np.float32))
COLOUR = (np.zeros(3, np.float32), np.ones(3, np.float32))


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_a_sheet_shows_every_sample(tmp_path):
    inputs = np.random.default_rng(0).random((10, 16, 16, 3)).astype(np.float32)
    titles = [f"cost $5 {i}" for i in range(10)]
    plot_contact_sheet(tmp_path / "sheet.png", inputs, titles, limits=COLOUR, stored=(0.0, 255.0))
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > image.height > 200
        assert len(image.convert("RGB").getcolors(10**6)) > 1000


def test_a_picture_that_fills_little_of_its_range_is_shown_dark_and_not_stretched(tmp_path):
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1)
    for name, factor in (("whole", 1.0), ("dark", 1 / 16)):
        plot_contact_sheet(
            tmp_path / f"{name}.png", ramp * np.float32(factor), ["x"], limits=GREY, stored=(0.0, 65535.0)
        )
    whole, dark = (pixels(tmp_path / f"{name}.png") for name in ("whole", "dark"))
    # Elsewhere the two sheets are the same.
    assert (whole - dark).min() >= 0 and whole.shape == dark.shape
    changed = whole[..., 0] != dark[..., 0]
    assert whole[changed].max() > 230 and dark[changed].max() <= 17
    assert to_picture(ramp[0] / 16, GREY).max() == np.float32(1 / 16)


def test_a_bar_tells_what_grey_stands_for(tmp_path):
    flat = np.full((1, 8, 8, 1), 0.5, np.float32)
    plot_contact_sheet(tmp_path / "x.png", flat, ["x"], limits=GREY, stored=(0.0, 4095.0))
    greys = pixels(tmp_path / "x.png")
    right = greys[:, greys.shape[1] // 2 :]
    assert len(np.unique(right[(np.ptp(right, axis=-1) == 0)])) > 100  # from black to white


def test_masks_are_drawn_in_colour_over_grey_volumes(tmp_path):
    inputs = np.random.default_rng(0).random((2, 12, 12, 6, 1)).astype(np.float32)
    masks = np.zeros((2, 12, 12, 6), np.uint8)
    for name in ("plain", "drawn"):
        overlay = Overlay(masks=masks)
        plot_contact_sheet(
            tmp_path / f"{name}.png", inputs, ["a", "b"], limits=GREY, stored=(0.0, 1.0), overlay=overlay
        )
        masks[:, 3:6, 3:6] = 2
    coloured = [(np.ptp(pixels(tmp_path / f"{name}.png"), axis=-1) > 20).sum() for name in ("plain", "drawn")]
    assert coloured[0] == 0 < coloured[1]


@pytest.mark.parametrize(("classes", "labels"), [(3, ["class 1", "class 2"]), (12, ["class 1", "class 9 and 2 more"])])
def test_a_legend_names_the_colours_of_masks(tmp_path, monkeypatch, classes, labels):
    figures = []
    before = contact_sheet.lay_out
    monkeypatch.setattr(contact_sheet, "lay_out", lambda one, **how: (figures.append(one), before(one, **how)))
    names = [f"class {number}" for number in range(classes)]
    overlay = Overlay(masks=np.ones((1, 4, 4), np.uint8), class_names=names)
    inputs = np.zeros((1, 4, 4, 1), np.float32)
    path = tmp_path / "sheet.png"
    plot_contact_sheet(path, inputs, ["a"], limits=GREY, stored=(0.0, 1.0), overlay=overlay, note="as they lay")
    (legend,) = figures[0].legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert [texts[0], texts[-1]] == labels and len(texts) == min(classes - 1, 9)
    assert figures[0].get_suptitle() == "as they lay"


def test_volumes_are_shown_front_up_and_with_the_patients_right_on_the_left():
    volume = np.zeros((8, 8, 4, 1), np.float32)
    volume[7, 7, 2] = 1  # right, front
    assert to_picture(volume, GREY)[0, 0] == 1


def test_channels_have_limits_of_their_own_and_values_beyond_are_clipped():
    picture = np.array([[[-1.0, 0.0, 5.0]]], np.float32)
    limits = np.array([-2, -1, 0], np.float32), np.array([2, 1, 4], np.float32)
    np.testing.assert_allclose(to_picture(picture, limits)[0, 0], [0.25, 0.5, 1])
    assert to_picture(np.full((2, 2, 1), 7.0, np.float32), (np.full(1, 7, np.float32),) * 2).max() == 0


def test_titles_must_be_as_many_as_samples(tmp_path):
    with pytest.raises(ValueError, match="one title per sample"):
        plot_contact_sheet(
            tmp_path / "sheet.png", np.zeros((2, 4, 4, 1), np.float32), ["a"], limits=GREY, stored=(0.0, 1.0)
        )
