import numpy as np
import pytest
from PIL import Image

from dpmed.figures.contact_sheet import plot_contact_sheet, to_picture


def test_a_sheet_shows_every_sample(tmp_path):
    inputs = np.random.default_rng(0).random((10, 16, 16, 3)).astype(np.float32)
    plot_contact_sheet(tmp_path / "sheet.png", inputs, [f"cost $5 {i}" for i in range(10)])
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > image.height > 200
        assert len(image.convert("RGB").getcolors(10**6)) > 1000


def test_masks_are_drawn_in_colour_over_grey_volumes(tmp_path):
    inputs = np.random.default_rng(0).random((2, 12, 12, 6, 1)).astype(np.float32)
    masks = np.zeros((2, 12, 12, 6), np.uint8)
    plot_contact_sheet(tmp_path / "plain.png", inputs, ["a", "b"], masks=masks)
    masks[:, 3:6, 3:6] = 2
    plot_contact_sheet(tmp_path / "drawn.png", inputs, ["a", "b"], masks=masks)

    def coloured(name):
        pixels = np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int)
        return (np.ptp(pixels, axis=-1) > 20).sum()

    assert coloured("plain.png") == 0 < coloured("drawn.png")


def test_volumes_are_shown_front_up_and_with_the_patients_right_on_the_left():
    volume = np.zeros((8, 8, 4, 1), np.float32)
    volume[7, 7, 2] = 1  # right, front
    assert to_picture(volume)[0, 0] == 1


def test_colours_are_stretched_together():
    picture = np.array([[[50.0, 100.0, 250.0]]], np.float32)
    np.testing.assert_allclose(to_picture(picture)[0, 0], [0, 0.25, 1])
    assert to_picture(np.full((2, 2, 1), 7.0, np.float32)).max() == 0


def test_titles_must_be_as_many_as_samples(tmp_path):
    with pytest.raises(ValueError, match="one title per sample"):
        plot_contact_sheet(tmp_path / "sheet.png", np.zeros((2, 4, 4, 1), np.float32), ["a"])
