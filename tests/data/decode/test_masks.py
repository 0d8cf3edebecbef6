import numpy as np
import pytest
from PIL import Image

from dpmed.data.decode.masks import read_mask
from dpmed.data.decode.pictures import decode_picture
from dpmed.errors import InputError


def slow_majority(values, size, classes):
    """The class with the most source pixels in each target pixel, for whole factors."""
    step = values.shape[0] // size[0], values.shape[1] // size[1]
    out = np.zeros(size, int)
    for y, x in np.ndindex(*size):
        block = values[y * step[0] : (y + 1) * step[0], x * step[1] : (x + 1) * step[1]]
        out[y, x] = np.bincount(block.ravel(), minlength=classes).argmax()
    return out


def test_blocks_of_one_class_stay_what_they_are_at_any_size(tmp_path):
    coarse = np.random.default_rng(0).integers(0, 4, (4, 6))
    values = np.kron(coarse, np.ones((4, 4), int))
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "m.png")
    read = {
        size: read_mask(tmp_path / "m.png", size=size, classes=4, image="image.png", sides=(16, 24))
        for size in ((16, 24), (4, 6), (32, 48))
    }
    assert np.array_equal(read[16, 24], values)
    assert np.array_equal(read[4, 6], slow_majority(values, (4, 6), 4)) and np.array_equal(read[4, 6], coarse)
    # Enlarged, only the borders between blocks may move, by less than a pixel of the source.
    assert np.array_equal(read[32, 48][3::8, 3::8], coarse)


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16"])
def test_every_way_to_store_whole_numbers_is_read(tmp_path, mode):
    values = np.zeros((16, 24), np.uint16 if mode == "I;16" else np.uint8)
    values[:8] = 1
    image = Image.fromarray(values.astype(bool)) if mode == "1" else Image.fromarray(values)
    if mode == "P":
        image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "m.png")
    assert np.array_equal(
        read_mask(tmp_path / "m.png", size=(16, 24), classes=2, image="image.png", sides=(16, 24)),
        values.astype(np.uint8),
    )


def test_a_missing_and_a_truncated_mask_are_said(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        read_mask(tmp_path / "none.png", size=(4, 4), classes=2, image="image.png", sides=(16, 24))
    Image.fromarray(np.random.default_rng(0).integers(0, 2, (16, 24)).astype(np.uint8)).save(tmp_path / "m.png")
    content = (tmp_path / "m.png").read_bytes()
    (tmp_path / "m.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"m\.png: cannot be decoded"):
        read_mask(tmp_path / "m.png", size=(4, 4), classes=2, image="image.png", sides=(16, 24))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["m.png", "m.tif"])
def test_a_mask_is_turned_as_its_header_says_and_as_its_picture_is(tmp_path, name, orientation):
    values = np.zeros((9, 12), np.uint8)
    values[0, 1:] = values[3, 4] = 1
    sides = (12, 9) if orientation > 4 else (9, 12)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(values).save(tmp_path / name, exif=exif)
    found = read_mask(tmp_path / name, size=sides, classes=2, image="image.png", sides=sides)
    picture = decode_picture(tmp_path / name, size=sides, channels=1, window=None, depth=8, narrow=False)[0][..., 0]
    assert np.array_equal(found, picture) and found.sum() == values.sum()
    assert np.array_equal(found, values) == (orientation == 1)


def test_several_pages_and_pictures_of_rounded_values_are_no_masks(tmp_path):
    page = Image.fromarray(np.zeros((4, 4), np.uint8))
    page.save(tmp_path / "m.tif", save_all=True, append_images=[page])
    page.save(tmp_path / "m.jpg")
    for name, words in (("m.tif", "holds 2 pages"), ("m.jpg", "is a JPEG, not a PNG or TIFF mask")):
        with pytest.raises(InputError, match=words):
            read_mask(tmp_path / name, size=(4, 4), classes=2, image="image.png", sides=(4, 4))
