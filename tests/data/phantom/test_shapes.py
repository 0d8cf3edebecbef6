import io

import numpy as np
import pytest
from PIL import Image

from dpmed.data.phantom.shapes import blob, ellipsoid, encode, generator, grid, smooth_field, to_bytes


def test_random_numbers_depend_on_seed_and_place_only():
    assert generator(1, 2).random() == generator(1, 2).random()
    assert len({generator(*numbers).random() for numbers in [(1, 2), (2, 1), (1, 3), (1, 2, 0), (1,)]}) == 5


def test_a_blob_without_irregularity_is_a_circle_of_its_radius():
    inside = blob(generator(0), (200, 300), centre=(0.1, -0.2), radius=0.4, irregularity=0.0) > 0
    area = inside.sum() / (100 * 100)  # in half heights
    assert area == pytest.approx(np.pi * 0.4**2, rel=0.02)
    y, x = np.argwhere(inside).mean(axis=0)
    assert y == pytest.approx(99.5 + 10, abs=1) and x == pytest.approx(149.5 - 30, abs=1)


def test_irregularity_lengthens_the_border():
    def border(irregularity):
        inside = blob(generator(3), (200, 200), centre=(0.0, 0.0), radius=0.5, irregularity=irregularity) > 0
        return np.abs(np.diff(inside.astype(int))).sum() / np.sqrt(inside.sum())

    assert border(0.3) > 1.1 * border(0.0)


def test_an_ellipsoid_has_its_volume():
    inside = ellipsoid(grid(60, 60, 60), np.zeros(3), np.array([0.5, 0.7, 0.3])) > 0
    assert inside.mean() * 8 == pytest.approx(4 / 3 * np.pi * 0.5 * 0.7 * 0.3, rel=0.05)


def test_a_field_changes_slowly():
    field = smooth_field(generator(0), (100, 100), cells=3)
    assert np.abs(np.diff(field, axis=0)).max() < 0.3 < field.std() * 3


def test_bytes_are_rounded_and_clipped_and_survive_a_png():
    assert to_bytes(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])).tolist() == [0, 0, 128, 255, 255]
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode(pixels, "PNG")))), pixels)
