import numpy as np
import pytest
from PIL import Image

from dpmed.errors import InputError
from dpmed.matching.images import nonzero_ratio, read_images


@pytest.mark.parametrize("channels", [1, 3])
def test_png_bytes_become_0_to_1_in_the_order_of_the_channels(tmp_path, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(tmp_path / "0.png")
    found = read_images(tmp_path, ["0.png"], shape=(5, 7, channels), value_range=(-150.0, 200.0))
    np.testing.assert_allclose(255 * found[0], pixels, atol=1e-4)


def test_arrays_are_brought_from_their_range_to_0_to_1_and_clipped(tmp_path):
    np.save(tmp_path / "0.npy", np.array([-150.0, 25.0, 200.0, 900.0, -900.0]).reshape(5, 1, 1, 1))
    found = read_images(tmp_path, ["0.npy"], shape=(5, 1, 1, 1), value_range=(-150.0, 200.0))
    assert found.ravel().tolist() == [0.0, 0.5, 1.0, 1.0, 0.0]


def test_the_share_above_the_lowest_value_counts_pixels_lit_in_any_channel():
    images = np.zeros((2, 2, 2, 3), np.float32)
    images[1, 0, 0, 2] = images[1, 1, 1, 0] = images[1, 1, 1, 1] = 0.5
    assert nonzero_ratio(images).tolist() == [0.0, 0.5]


def write_pickle(path):
    np.save(path, np.array([print], object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("0.png", lambda path: None, "is missing"),
        ("0.png", lambda path: path.write_bytes(b""), "cannot be decoded"),
        ("0.png", lambda path: Image.new("L", (4, 6)).save(path), "6 x 4 pixels"),
        ("0.png", lambda path: Image.new("RGB", (6, 4)).save(path), r"\(RGB\)"),
        ("0.png", lambda path: Image.new("L", (6, 4)).save(path, format="BMP"), "cannot be decoded"),
        ("0.npy", lambda path: path.write_bytes(b"x" * 200), "not a readable .npy"),
        ("0.npy", write_pickle, "not a readable .npy"),
        ("0.npy", lambda path: np.save(path, np.zeros((4, 6))), "manifest says"),
        ("0.npy", lambda path: np.save(path, np.zeros((4, 6, 1), complex)), "manifest says"),
        ("0.npy", lambda path: np.save(path, np.full((4, 6, 1), np.inf)), "not finite"),
        ("../0.png", lambda path: None, "leads out"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_files_name(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(InputError, match=message):
        read_images(tmp_path, [name], shape=(4, 6, 1), value_range=(0.0, 1.0))


def test_a_truncated_array_is_refused_before_memory_is_taken(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000, 1), }"
    header += b" " * (118 - len(header)) + b"\n"
    (tmp_path / "0.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64)
    with pytest.raises(InputError, match=r"not a readable .npy"):
        read_images(tmp_path, ["0.npy"], shape=(4, 6, 1), value_range=(0.0, 1.0))
