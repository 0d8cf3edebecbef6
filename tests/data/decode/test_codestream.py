import io
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import get_frame

from dpmed.data.decode.codestream import Declared, declared_size, rle_lengths

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"


def encoded(shape, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros(shape, np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000"])
@pytest.mark.parametrize("shape", [(31, 17), (17, 40, 3)])
def test_what_pillow_writes_is_read(kind, shape):
    expected = Declared(rows=shape[0], columns=shape[1], samples=shape[2] if len(shape) == 3 else 1)
    assert declared_size(encoded(shape, kind)) == expected  # of JPEG 2000: in its boxes
    if kind == "JPEG2000":
        assert declared_size(encoded(shape, kind, no_jp2=True)) == expected
    else:
        assert declared_size(encoded(shape, kind, progressive=True)) == expected


@pytest.mark.parametrize(
    "name",
    ["JPEGLSNearLossless_16.dcm", "SC_rgb_jpeg_gdcm.dcm", "JPGExtended.dcm", "GDCMJ2K_TextGBR.dcm", "693_J2KI.dcm"],
)
def test_files_of_all_compressions_declare_what_their_header_says(name):
    dataset = pydicom.dcmread(BUNDLED / name)
    found = declared_size(get_frame(dataset.PixelData, 0, number_of_frames=1))
    assert found == Declared(rows=dataset.Rows, columns=dataset.Columns, samples=dataset.SamplesPerPixel)


def test_pictures_of_many_tiles_or_none_are_not_trusted():
    good = bytearray(encoded((64, 64), "JPEG2000", no_jp2=True))
    for tile in (0, 1):
        bad = bytearray(good)
        struct.pack_into(">II", bad, 24, tile, tile or 64)
        struct.pack_into(">II", bad, 8, 60_000, 60_000)
        assert declared_size(bytes(bad)) is None


def test_a_second_size_hidden_before_the_first_is_not_trusted():
    good = encoded((16, 16), "JPEG")
    for marker in (b"\xff\xde\x00\x04ab", b"\xff\xeb\x00\x04ab"):
        assert declared_size(good[:2] + marker + good[2:]) is None
    assert declared_size(good[:2] + b"\xff\xff\xff" + good[2:]) is not None  # filling


@given(st.binary(max_size=80), st.sampled_from([b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "]))
def test_no_bytes_break_it(content, start):
    declared_size(start + content)


@given(st.integers(0, 600))
def test_a_cut_codestream_declares_the_same_or_nothing(length):
    for kind in ("JPEG", "JPEG2000"):
        whole = encoded((16, 12), kind)
        assert declared_size(whole[:length]) in (None, declared_size(whole))


def rle(*segments):
    starts = np.cumsum([64, *map(len, segments)])[:-1].tolist()
    return struct.pack("<16I", len(segments), *starts, *[0] * (15 - len(segments))) + b"".join(segments)


def test_runs_are_counted_as_pydicom_unfolds_them():
    from pydicom.pixels.decoders.rle import _rle_decode_segment

    segments = [b"\x02abc\xfex\x80\x00z", b"\x81y\x00", b"", b"\x05ab"]
    expected = [len(_rle_decode_segment(segment)) for segment in segments]
    assert rle_lengths(rle(*segments), most=1000) == expected == [7, 128, 0, 2]
    dataset = pydicom.dcmread(BUNDLED / "SC_rgb_rle_16bit.dcm")
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    assert rle_lengths(frame, most=10_000) == [10_000] * 6


def test_counting_stops_where_there_is_too_much():
    assert rle_lengths(rle(b"\x81y" * 10_000), most=100)[0] <= 256


@given(st.binary(max_size=120))
def test_what_is_no_frame_of_runs_is_told(content):
    found = rle_lengths(content, most=1000)
    assert found is None or 1 <= len(found) <= 15
    assert rle_lengths(struct.pack("<16I", 1, 9999, *[0] * 14), most=10) is None
    assert rle_lengths(struct.pack("<16I", 99, *[64] * 15), most=10) is None
