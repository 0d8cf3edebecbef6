"""The size of a picture as declared by its JPEG, JPEG-LS or JPEG 2000 codestream.

A decoder allocates what the codestream declares, not what the surrounding header says, so the codestream is checked
before decoding.

RLE has no such size; its runs are counted instead, since its decoder trusts that they fill exactly one frame.

Sources: ITU-T T.81 annex B (JPEG), T.87 annex C (JPEG-LS), T.800 annexes A and I (JPEG 2000 and its boxes); DICOM PS3.5
annex G (RLE).
"""

import struct
from dataclasses import dataclass

# Frames that medical files are packed in: baseline, extended, progressive and lossless JPEG, and JPEG-LS.
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC3, 0xF7)
# A picture in several resolutions, and residuals of JPEG XT: each has its own sizes, and neither is used in DICOM.
_REFUSED = (0xDE, 0xEB)
_ALONE = (0x01, *range(0xD0, 0xD9))
_SCAN, _END = 0xDA, 0xD9
_MOST_TILES = 4096
_J2K_MARK = b"\xff\x4f\xff\x51"
_JP2_MARK = b"\0\0\0\x0cjP  "
_CODESTREAM_BOX = b"jp2c"
_LONG_BOX = 1
_BOX_BYTES, _LONG_BOX_BYTES = 8, 16
_RLE_HEADER_BYTES, _RLE_SEGMENTS = 64, 15
_NO_RUN = 128


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What a codestream declares.

    Attributes:
        rows: pixels.
        columns: pixels.
        samples: values per pixel.
    """

    rows: int
    columns: int
    samples: int


def declared_size(content: bytes) -> Declared | None:
    """The size that a codestream declares, or None if it has none that is safe for a decoder."""
    try:
        if content.startswith(b"\xff\xd8"):
            return _jpeg(content)
        if content.startswith(_JP2_MARK):
            content = content[_codestream_start(content) :]
        return _jpeg2000(content) if content.startswith(_J2K_MARK) else None
    except (struct.error, IndexError):
        return None


def rle_lengths(content: bytes, *, most: int) -> list[int] | None:
    """The number of bytes that each segment of an RLE frame expands to, or None if it is not an RLE frame.

    Args:
        content: the frame.
        most: counting stops if a segment is longer than this.
    """
    if len(content) < _RLE_HEADER_BYTES:
        return None
    count, *starts = struct.unpack_from("<16I", content)
    if not 1 <= count <= _RLE_SEGMENTS:
        return None
    ends = [*starts[1:count], len(content)]
    pairs = list(zip(starts[:count], ends, strict=True))
    if any(not _RLE_HEADER_BYTES <= start <= end <= len(content) for start, end in pairs):
        return None
    return [_unfolded(content, start, end, most) for start, end in pairs]


def _unfolded(content: bytes, place: int, end: int, most: int) -> int:
    total = 0
    while place < end and total <= most:
        sign = content[place]
        place += 1
        if sign < _NO_RUN:  # so many bytes as they are, and one more
            total += min(sign + 1, end - place)
            place += sign + 1
        elif sign > _NO_RUN:  # one byte, repeated
            total += 257 - sign if place < end else 0
            place += 1
    return total


def _jpeg(content: bytes) -> Declared | None:
    place = 2
    while content[place] == 0xFF:  # noqa: PLR2004 the first byte of every marker
        marker = content[place + 1]
        if marker == 0xFF:  # noqa: PLR2004 filling
            place += 1
            continue
        place += 2
        if marker in _ALONE:
            continue
        if marker in (_SCAN, _END, *_REFUSED):
            return None
        if marker in _FRAMES:
            rows, columns, samples = struct.unpack_from(">HHB", content, place + 3)
            return Declared(rows=rows, columns=columns, samples=samples)
        place += struct.unpack_from(">H", content, place)[0]
    return None


def _jpeg2000(content: bytes) -> Declared | None:
    sides = struct.unpack_from(">8I", content, 8)
    width, height, left, top, tile_width, tile_height = sides[:6]
    samples = struct.unpack_from(">H", content, 40)[0]
    if min(tile_width, tile_height) < 1 or left >= width or top >= height:
        return None
    if -(-width // tile_width) * -(-height // tile_height) > _MOST_TILES:
        return None
    return Declared(rows=height - top, columns=width - left, samples=samples)


def _codestream_start(content: bytes) -> int:
    """Where the first codestream of a JP2 file begins; the end of the file if there is none."""
    place = 0
    while place + _BOX_BYTES <= len(content):
        length = struct.unpack_from(">I", content, place)[0]
        kind = content[place + 4 : place + 8]
        header = _BOX_BYTES
        if length == _LONG_BOX:
            length, header = struct.unpack_from(">Q", content, place + 8)[0], _LONG_BOX_BYTES
        if kind == _CODESTREAM_BOX:
            return place + header
        if length < header:
            break
        place += length
    return len(content)
