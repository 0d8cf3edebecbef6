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

from dpmed.data.decode.codestream import Declared, declared_size

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
