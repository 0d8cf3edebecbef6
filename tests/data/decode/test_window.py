import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmed.data.decode.window import deepen, percentile_window, scale_of, to_depth, to_unit


def test_windowing_maps_ends_to_0_and_1_and_clips():
    found = to_unit(np.array([-5.0, 0.0, 0.5, 1.0, 9.0], np.float32), (0.0, 1.0))
    assert found.tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize(("depth", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_a_depth_has_its_type_and_rounds(depth, dtype):
    found = to_depth(np.array([0, 0.5, 1], np.float32), depth)
    assert found.dtype == dtype and found.tolist() == [0, round(scale_of(depth) / 2 + 0.01), scale_of(depth)]


@given(st.integers(0, 65535))
def test_all_levels_of_16_bits_survive(value):
    assert to_depth(to_unit(np.float32([value]), (0.0, 65535.0)), 16)[0] == value


def test_all_4096_levels_of_12_bits_stay_apart():
    levels = np.arange(4096, dtype=np.float32)
    assert len(np.unique(to_depth(to_unit(levels, (0.0, 4095.0)), 16))) == 4096
    assert len(np.unique(to_depth(to_unit(levels, (0.0, 65535.0)), 16))) == 4096


def test_8_bit_pixels_keep_their_share_of_the_range():
    pixels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(deepen(pixels, 8), pixels)
    np.testing.assert_array_equal(deepen(pixels, 16) / 65535, pixels / 255)


def test_a_small_unit_keeps_its_contrast():
    metres = np.linspace(0, 3e-9, 7, dtype=np.float32)  # diffusion, m²/s
    np.testing.assert_allclose(to_unit(metres, (0.0, 3e-9)), np.linspace(0, 1, 7), atol=1e-6)


def test_a_flat_picture_has_a_window_too():
    flat = np.full((4, 4), 7, np.float32)
    assert np.isfinite(to_unit(flat, percentile_window(flat))).all()
