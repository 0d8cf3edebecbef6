import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from dpmed.data.decode.pictures import decode_picture, resize_picture, window_to_bytes
from dpmed.errors import InputError


def smooth(height, width):
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(x / 23 + phase) * np.cos(y / 31 - phase) for phase in (0.0, 0.7, 1.9)]
    return np.rint(127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def encoded(pixels, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_pixels_of_lossless_files_come_out_as_they_went_in(tmp_path, kind):
    pixels = smooth(40, 60)
    path = write(tmp_path / "picture", encoded(pixels, kind))
    assert np.array_equal(decode_picture(path, size=(40, 60), channels=3), pixels)


def test_resizing_agrees_with_scikit_image_on_a_smooth_picture(tmp_path):
    from skimage.transform import resize

    pixels = smooth(450, 600)
    path = write(tmp_path / "picture.png", encoded(pixels, "PNG"))
    ours = decode_picture(path, size=(112, 150), channels=3).astype(float)
    theirs = resize(pixels, (112, 150), order=1, anti_aliasing=True, preserve_range=True)
    assert np.abs(ours - theirs).mean() < 1.0


def test_resizing_is_anti_aliased(tmp_path):
    # A chequerboard of single pixels must become grey, not a pattern.
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    path = write(tmp_path / "board.png", encoded(board, "PNG"))
    small = decode_picture(path, size=(32, 32), channels=1)
    assert small.min() > 115 and small.max() < 140


def test_fast_decoding_of_jpegs_is_close_to_decoding_them_in_full(tmp_path):
    pixels = smooth(450, 600)
    path = write(tmp_path / "picture.jpg", encoded(pixels, "JPEG", quality=95))
    fast = decode_picture(path, size=(224, 224), channels=3)
    with Image.open(path) as image:
        full = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR))
    assert np.abs(fast.astype(int) - full.astype(int)).mean() < 1.0
    assert np.abs(fast.astype(int) - full.astype(int)).max() <= 6


def test_colour_becomes_grey_and_grey_becomes_colour(tmp_path):
    colour = write(tmp_path / "colour.png", encoded(smooth(20, 20), "PNG"))
    with Image.open(colour) as image:
        expected = np.asarray(image.convert("L"))
    assert np.array_equal(decode_picture(colour, size=(20, 20), channels=1)[..., 0], expected)
    grey = write(tmp_path / "grey.png", encoded(expected, "PNG"))
    assert np.array_equal(decode_picture(grey, size=(20, 20), channels=3), np.repeat(expected[..., None], 3, axis=-1))


def test_deep_pictures_are_windowed(tmp_path):
    values = np.array([[0, 100, 1000], [2000, 3000, 65535]], np.uint16)
    path = write(tmp_path / "deep.png", encoded(values, "PNG"))
    found = decode_picture(path, size=(2, 3), channels=1, window=(100.0, 3000.0))
    expected = np.rint((np.clip(values.astype(float), 100, 3000) - 100) / 2900 * 255)
    assert np.array_equal(found[..., 0], expected)


def test_the_cameras_orientation_is_honoured(tmp_path):
    pixels = smooth(30, 50)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", exif=exif)
    path = write(tmp_path / "turned.tif", buffer.getvalue())
    found = decode_picture(path, size=(50, 30), channels=3)
    assert np.array_equal(found, np.rot90(pixels, -1))


def bomb_png(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello, world", "is no PNG, JPEG or TIFF"),
        (encoded(smooth(64, 64), "JPEG")[:900], "damaged or incomplete"),
        (encoded(smooth(64, 64), "PNG")[:900], "damaged or incomplete"),
        (encoded(smooth(64, 64), "PNG")[:20], "PNG|damaged"),
        (encoded(smooth(64, 64), "TIFF")[:900], "damaged or incomplete"),
        (encoded(smooth(16, 16), "GIF"), "is no PNG, JPEG or TIFF"),
        (bomb_png(100_000, 100_000), "refused"),
        (bomb_png(10_000, 9_000), "refused"),
        (bomb_png(0, 5), "PNG|damaged|refused"),
    ],
)
def test_hostile_pictures_give_one_message_with_the_files_name(tmp_path, content, message):
    path = write(tmp_path / "bad picture.jpg", content)
    tracemalloc.start()
    with pytest.raises(InputError, match=rf"bad picture\.jpg.*({message})"):
        decode_picture(path, size=(32, 32), channels=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_a_missing_file_a_folder_and_several_pages_are_said(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png: there is no such file"):
        decode_picture(tmp_path / "gone.png", size=(8, 8), channels=1)
    with pytest.raises(InputError, match="damaged"):
        decode_picture(tmp_path, size=(8, 8), channels=1)
    frames = [Image.fromarray(smooth(16, 16)) for _ in range(3)]
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"pages\.tif: holds 3 pages"):
        decode_picture(tmp_path / "pages.tif", size=(8, 8), channels=1)


def test_values_that_are_not_finite_are_refused(tmp_path):
    values = np.ones((8, 8), np.float32)
    values[2, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "nan.tif")
    with pytest.raises(InputError, match=r"nan\.tif.*not finite"):
        decode_picture(tmp_path / "nan.tif", size=(8, 8), channels=1, window=(0.0, 1.0))


def test_resizing_pixels_in_memory_is_the_same_filter(tmp_path):
    pixels = smooth(60, 80)
    path = write(tmp_path / "picture.png", encoded(pixels, "PNG"))
    assert np.array_equal(resize_picture(pixels, size=(24, 20)), decode_picture(path, size=(24, 20), channels=3))
    assert resize_picture(pixels[..., :1], size=(24, 20)).shape == (24, 20, 1)


def test_windowing_maps_ends_to_0_and_255_and_rounds():
    found = window_to_bytes(np.array([-5.0, 0.0, 0.5, 1.0, 9.0]), (0.0, 1.0))
    assert found.tolist() == [0, 0, 128, 255, 255]
