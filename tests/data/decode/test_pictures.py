import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from dpmed.data.decode.pictures import decode_picture, picture_bits, resize_picture, to_channels
from dpmed.errors import InputError


def smooth(height, width):
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(x / 23 + phase) * np.cos(y / 31 - phase) for phase in (0.0, 0.7, 1.9)]
    return np.rint(127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def encoded(pixels, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(path, *, window=None, depth=8, narrow=False, **wanted):
    return decode_picture(path, window=window, depth=depth, narrow=narrow, **wanted)[0]


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_pixels_of_lossless_files_come_out_as_they_went_in(tmp_path, kind):
    pixels = smooth(40, 60)
    path = write(tmp_path / "picture", encoded(pixels, kind))
    assert np.array_equal(pixels_of(path, size=(40, 60), channels=3), pixels)


def test_resizing_agrees_with_scikit_image_on_a_smooth_picture(tmp_path):
    from skimage.transform import resize

    pixels = smooth(450, 600)
    path = write(tmp_path / "picture.png", encoded(pixels, "PNG"))
    ours = pixels_of(path, size=(112, 150), channels=3).astype(float)
    theirs = resize(pixels, (112, 150), order=1, anti_aliasing=True, preserve_range=True)
    assert np.abs(ours - theirs).mean() < 1.0


def test_resizing_is_anti_aliased(tmp_path):
    # A chequerboard of single pixels must become grey, not a pattern.
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    path = write(tmp_path / "board.png", encoded(board, "PNG"))
    small = pixels_of(path, size=(32, 32), channels=1)
    assert small.min() > 115 and small.max() < 140


def test_fast_decoding_of_jpegs_is_close_to_decoding_them_in_full(tmp_path):
    pixels = smooth(450, 600)
    path = write(tmp_path / "picture.jpg", encoded(pixels, "JPEG", quality=95))
    fast = pixels_of(path, size=(224, 224), channels=3)
    with Image.open(path) as image:
        full = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR))
    assert np.abs(fast.astype(int) - full.astype(int)).mean() < 1.0
    assert np.abs(fast.astype(int) - full.astype(int)).max() <= 6


def test_colour_becomes_grey_and_grey_becomes_colour(tmp_path):
    colour = write(tmp_path / "colour.png", encoded(smooth(20, 20), "PNG"))
    with Image.open(colour) as image:
        expected = np.asarray(image.convert("L"))
    assert np.array_equal(pixels_of(colour, size=(20, 20), channels=1)[..., 0], expected)
    grey = write(tmp_path / "grey.png", encoded(expected, "PNG"))
    assert np.array_equal(pixels_of(grey, size=(20, 20), channels=3), np.repeat(expected[..., None], 3, axis=-1))


def test_deep_pictures_are_windowed(tmp_path):
    values = np.array([[0, 100, 1000], [2000, 3000, 65535]], np.uint16)
    path = write(tmp_path / "deep.png", encoded(values, "PNG"))
    unit = (np.clip(values.astype(float), 100, 3000) - 100) / 2900
    for depth, most in ((8, 255), (16, 65535)):
        found = pixels_of(path, size=(2, 3), channels=1, window=(100.0, 3000.0), depth=depth, narrow=True)
        assert np.array_equal(found[..., 0], np.rint(unit * most)) and found.dtype == f"uint{depth}"


def test_all_grey_levels_of_a_12_bit_picture_are_kept(tmp_path):
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    path = write(tmp_path / "deep.png", encoded(values, "PNG"))
    assert picture_bits(path) == 16
    plain = pixels_of(path, size=(64, 64), channels=1, depth=16)
    assert np.array_equal(plain[..., 0], values)
    stretched = pixels_of(path, size=(64, 64), channels=1, depth=16, window=(0.0, 4095.0))
    assert len(np.unique(stretched)) == 4096 and stretched.max() == 65535
    with pytest.raises(
        InputError, match=r"deep\.png: has 16 bits per value, of which 8 would be kept.*data\.depth = 16"
    ):
        pixels_of(path, size=(64, 64), channels=1)
    percentiles = pixels_of(path, size=(64, 64), channels=1, depth=16, window="percentiles")
    low, high = np.percentile(values, [0.5, 99.5])
    expected = (np.clip(values, low, high) - low) / (high - low) * 65535
    assert np.abs(percentiles[..., 0] - expected).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_where_zero_is_white_bright_is_bright_at_any_depth(tmp_path, dtype):
    values = np.arange(64, dtype=dtype).reshape(8, 8)
    # The tag of how values are meant, a short number: 1 where zero is black, which is all that Pillow writes here.
    tag = struct.pack("<HHI", 0x0106, 3, 1)
    content = encoded(values, "TIFF")
    assert content.count(tag + b"\1\0") == 1
    path = write(tmp_path / "x.tif", content.replace(tag + b"\1\0", tag + b"\0\0"))
    found = pixels_of(path, size=(8, 8), channels=1, depth=8 * values.dtype.itemsize)[..., 0]
    assert np.array_equal(found, np.iinfo(dtype).max - values)


def test_an_8_bit_picture_among_deep_ones_keeps_its_share_of_the_range(tmp_path):
    pixels = smooth(20, 30)
    path = write(tmp_path / "x.png", encoded(pixels, "PNG"))
    found = pixels_of(path, size=(20, 30), channels=3, depth=16, window=(0.0, 4095.0))
    assert np.array_equal(found, pixels.astype(np.uint16) * 257) and picture_bits(path) == 8


def test_16_bits_per_colour_are_not_cut_in_silence(tmp_path):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    for colour, samples in ((2, 3), (6, 4), (4, 2)):
        header = struct.pack(">IIBBBBB", 3, 2, 16, colour, 0, 0, 0)
        rows = (b"\0" + struct.pack(">H", 0x1234) * 3 * samples) * 2
        content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
        path = write(tmp_path / "deep.png", content + chunk(b"IEND", b""))
        assert picture_bits(path) == 16
        with pytest.raises(InputError, match="of which 8 would be kept"):
            pixels_of(path, size=(2, 3), channels=3)
        with pytest.raises(InputError, match="16 bits per colour, which are not read in full"):
            pixels_of(path, size=(2, 3), channels=3, depth=16)
        narrowed = pixels_of(path, size=(2, 3), channels=3, narrow=True)
        assert narrowed.max() == (0x12 if samples == 3 else round(0x12 * 0x12 / 255))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_values_without_a_range_of_their_own_need_a_window(tmp_path, dtype):
    values = np.linspace(0, 90, 12).reshape(3, 4).astype(dtype)
    Image.fromarray(values).save(tmp_path / "x.tif")
    assert picture_bits(tmp_path / "x.tif") == 32
    with pytest.raises(InputError, match=r"more than 16 bits.*data\.window"):
        pixels_of(tmp_path / "x.tif", size=(3, 4), channels=1, depth=16)
    with pytest.raises(InputError, match="no window in its header"):
        pixels_of(tmp_path / "x.tif", size=(3, 4), channels=1, depth=16, window="header")
    found = pixels_of(tmp_path / "x.tif", size=(3, 4), channels=1, depth=16, window=(0.0, 100.0))
    assert np.array_equal(found[..., 0], np.rint(values.astype(np.float32) / np.float32(100) * np.float32(65535)))


def test_what_is_transparent_is_laid_over_black(tmp_path):
    colour = np.zeros((2, 3, 4), np.uint8)
    colour[..., 0], colour[..., 3] = 200, [255, 128, 0]
    path = write(tmp_path / "x.png", encoded(colour, "PNG"))
    found = pixels_of(path, size=(2, 3), channels=3)
    assert found[0, :, 0].tolist() == [200, 100, 0] and found[..., 1:].max() == 0
    grey = write(tmp_path / "y.png", encoded(np.stack([colour[..., 0], colour[..., 3]], axis=-1), "PNG"))
    assert pixels_of(grey, size=(2, 3), channels=1)[0, :, 0].tolist() == [200, 100, 0]


def test_palettes_are_looked_up(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    image.save(tmp_path / "x.png")
    found = pixels_of(tmp_path / "x.png", size=(1, 3), channels=3)
    assert found[0].tolist() == [[255, 0, 0], [0, 255, 0], [10, 20, 30]]
    assert pixels_of(tmp_path / "x.png", size=(1, 3), channels=1)[0, :, 0].tolist() == [76, 150, 18]


def test_colours_of_another_kind_are_refused(tmp_path):
    Image.new("LAB", (4, 4)).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match="colours of the kind LAB"):
        pixels_of(tmp_path / "x.tif", size=(4, 4), channels=3)


def test_channels_of_unit_values_follow_the_same_rule_as_pillows():
    pixels = smooth(8, 8)
    unit = pixels.astype(np.float32) / 255
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.abs(to_channels(unit, 1)[..., 0] * 255 - expected).max() <= 1
    assert to_channels(unit[..., :1], 3).shape == (8, 8, 3) and to_channels(unit, 3) is unit


def test_the_cameras_orientation_is_honoured(tmp_path):
    pixels = smooth(30, 50)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", exif=exif)
    path = write(tmp_path / "turned.tif", buffer.getvalue())
    found, shape = decode_picture(path, size=(50, 30), channels=3, window=None, depth=8, narrow=False)
    assert np.array_equal(found, np.rot90(pixels, -1)) and shape == (50, 30)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.tif", exif=exif)
    found = pixels_of(tmp_path / "grey.tif", size=(50, 30), channels=1)
    assert np.array_equal(found[..., 0], np.rot90(pixels[..., 0], -1))
    deep = pixels[..., 0].astype(np.uint16) * 16
    for kind in ("tif", "png"):
        Image.fromarray(deep).save(tmp_path / f"deep.{kind}", exif=exif)
        found, shape = decode_picture(
            tmp_path / f"deep.{kind}", size=(50, 30), channels=1, window=None, depth=16, narrow=False
        )
        assert np.array_equal(found[..., 0], np.rot90(deep, -1)) and shape == (50, 30)
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert decode_picture(tmp_path / "turned.jpg", size=(8, 8), channels=3, window=None, depth=8, narrow=False)[1] == (
        50,
        30,
    )


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
        (b"hello, world", "is not a PNG, JPEG or TIFF"),
        (encoded(smooth(64, 64), "JPEG")[:900], "damaged or incomplete"),
        (encoded(smooth(64, 64), "PNG")[:900], "damaged or incomplete"),
        (encoded(smooth(64, 64), "PNG")[:20], "PNG|damaged"),
        (encoded(smooth(64, 64), "TIFF")[:900], "damaged or incomplete"),
        (encoded(smooth(16, 16), "GIF"), "is a GIF"),
        (encoded(smooth(16, 16), "BMP"), "is not a PNG, JPEG or TIFF"),
        (bomb_png(100_000, 100_000), "refused"),
        (bomb_png(10_000, 9_000), "refused"),
        (bomb_png(0, 5), "PNG|damaged|refused"),
    ],
)
def test_hostile_pictures_give_one_message_with_the_files_name(tmp_path, content, message):
    path = write(tmp_path / "bad picture.jpg", content)
    Image.init()  # plugins that are loaded on the way are not what is measured
    tracemalloc.start()
    with pytest.raises(InputError, match=rf"bad picture\.jpg.*({message})"):
        pixels_of(path, size=(32, 32), channels=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_a_missing_file_a_folder_and_several_pages_are_said(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png: there is no such file"):
        pixels_of(tmp_path / "gone.png", size=(8, 8), channels=1)
    with pytest.raises(InputError, match="damaged"):
        pixels_of(tmp_path, size=(8, 8), channels=1)
    frames = [Image.fromarray(smooth(16, 16)) for _ in range(3)]
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"pages\.tif: holds 3 pages"):
        pixels_of(tmp_path / "pages.tif", size=(8, 8), channels=1)
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=[Image.fromarray(255 - smooth(16, 16))])
    with pytest.raises(InputError, match=r"moving\.png: holds 2 pages"):
        pixels_of(tmp_path / "moving.png", size=(8, 8), channels=1)


def test_what_a_camera_writes_behind_its_picture_is_passed_over(tmp_path):
    first, preview = Image.fromarray(smooth(40, 60)), Image.fromarray(255 - smooth(20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[preview], quality=95, exif=exif)
    first.save(tmp_path / "y.jpg", "JPEG", quality=95, exif=exif)
    several, plain = (pixels_of(tmp_path / name, size=(60, 40), channels=3) for name in ("x.jpg", "y.jpg"))
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.n_frames == 2
    assert np.array_equal(several, plain)


def test_values_that_are_not_finite_are_refused(tmp_path):
    values = np.ones((8, 8), np.float32)
    values[2, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "nan.tif")
    with pytest.raises(InputError, match=r"nan\.tif.*not finite"):
        pixels_of(tmp_path / "nan.tif", size=(8, 8), channels=1, window=(0.0, 1.0), depth=16)


def test_resizing_pixels_in_memory_is_the_same_filter(tmp_path):
    pixels = smooth(60, 80)
    path = write(tmp_path / "picture.png", encoded(pixels, "PNG"))
    assert np.array_equal(resize_picture(pixels, size=(24, 20)), pixels_of(path, size=(24, 20), channels=3))
    assert resize_picture(pixels[..., :1], size=(24, 20)).shape == (24, 20, 1)
    real = resize_picture(pixels.astype(np.float32), size=(24, 20))
    assert np.abs(real - resize_picture(pixels, size=(24, 20))).max() <= 1
