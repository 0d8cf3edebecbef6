"""Reads untrusted DICOM files with the extra `dicom` (pydicom and its decoders): header, sizes, stored values.

pydicom parses and its plugins decompress; sizes are checked beforehand, including those inside a compressed frame. Only
the necessary tags are read. No text from a header reaches any output: errors, warnings and logs of pydicom may quote
names and IDs of patients, so none of them is passed on.

Source: DICOM PS3.3 (image pixel module) and PS3.5 (encodings).
"""

import io
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Shaped

from dpmed.data.decode.codestream import declared_size, rle_lengths
from dpmed.data.decode.pictures import MAX_PIXELS
from dpmed.data.decode.quiet import ignore_logs, ignore_warnings
from dpmed.errors import InputError, install_extra

_MAX_BYTES = 1 << 30
# A header of many tiny elements takes about sixty times its size as Python objects.
_MAX_HEADER_BYTES = 1 << 24
_USUAL_HEADER_BYTES = 1 << 16
_MAX_FRAME_BYTES = 1 << 28
_CHUNK_BYTES = 1 << 20
_MARK, _PREAMBLE_BYTES = b"DICM", 128
_META_GROUP, _PIXEL_GROUP = 0x0002, 0x7FE0
_DEFLATED = "1.2.840.10008.1.2.1.99"
# Not compressed, or by runs of equal bytes (RLE): all bits stay where they were.
_BITS_AS_STORED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5")
_MAX_INFLATED_BYTES = 1 << 28
_GREY, _PALETTE = ("MONOCHROME1", "MONOCHROME2"), "PALETTE COLOR"
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_BITS = (1, 8, 16, 32, 64)
_PIXEL_ELEMENTS = {0x0010: "PixelData", 0x0008: "FloatPixelData", 0x0009: "DoubleFloatPixelData"}
_PIXEL_TYPES = (b"OB", b"OW", b"OF", b"OD", b"UN")
_SPARE_RUN = 128  # the longest run of RLE: padding beyond the end of a frame
_PANIC = "PanicException"
_NOISY = ("pydicom", "pylibjpeg", "libjpeg", "openjpeg", "rle")

_PIXEL_TAGS = (
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)  # fmt: skip
_VALUE_TAGS = (
    "Modality", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData", "SegmentedBluePaletteColorLookupTableData",
)  # fmt: skip
_SPACE_TAGS = (
    "SeriesInstanceUID", "PatientID", "IssuerOfPatientID", "ImageOrientationPatient", "ImagePositionPatient",
    "PixelSpacing", "GridFrameOffsetVector", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class DicomFile:
    """One file with its header read and its sizes checked; frames are decoded on demand.

    Attributes:
        path: the file, for messages.
        dataset: pydicom's data set, with only the necessary tags.
        syntax: UID of how the values are packed.
        pixels_at: where the element of the pixels begins, bytes.
        inflated: the file's content if it is deflated as a whole, else None.
        rows: of a frame,
        columns: of a frame,
        samples: per pixel, 1 or 3.
        frames: at least 1.
        bits: number of bits used in a stored value.
        signed: whether stored values may be negative.
        real: whether stored values are floating-point numbers.
        photometric: how samples are interpreted, one of the known names.
    """

    path: Path
    dataset: Any
    syntax: str
    pixels_at: int
    inflated: bytes | None
    rows: int
    columns: int
    samples: int
    frames: int
    bits: int
    signed: bool
    real: bool
    photometric: str

    @property
    def grey(self) -> bool:
        """Whether a value is a brightness, not a colour or a palette index."""
        return self.photometric in _GREY

    @property
    def stored_range(self) -> tuple[int, int]:
        """The lowest and the highest value that the bits of a stored value can hold."""
        half = 1 << (self.bits - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)

    def stored(self, frame: int) -> Shaped[np.ndarray, "rows columns *sample"]:
        """The values of one frame as stored; colours as red, green and blue.

        Raises:
            InputError: they are damaged, incomplete or compressed in a way that no installed decoder reads.
        """
        return guarded(self.path, lambda: self._stored(frame))

    def _stored(self, frame: int) -> Shaped[np.ndarray, "rows columns *sample"]:
        from pydicom.pixels import get_decoder
        from pydicom.pixels.utils import as_pixel_options
        from pydicom.uid import UID, UID_dictionary

        syntax = UID(self.syntax)
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:
            # Names of DICOM's own dictionary only: a file could declare any text.
            how = f"as {syntax.name}, which" if syntax in UID_dictionary else "in a way that"
            raise InputError(f"is compressed {how} no installed decoder reads", where=str(self.path)) from None
        options = as_pixel_options(self.dataset, transfer_syntax_uid=syntax, number_of_frames=self.frames)
        with self._open() as file:
            file.seek(self.pixels_at)
            self._skip_element_header(file, options)
            plugin = self._check_frame(file, frame, options) if syntax.is_encapsulated else ""
            values = decoder.as_array(file, index=frame, validate=True, raw=False, decoding_plugin=plugin, **options)[0]
        wanted = (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)
        if values.shape != wanted:
            raise InputError("is damaged: its pixels do not fit its header", where=str(self.path))
        return values

    def _open(self) -> io.BufferedIOBase:
        return self.path.open("rb") if self.inflated is None else io.BytesIO(self.inflated)

    def _skip_element_header(self, file: io.BufferedIOBase, options: dict[str, Any]) -> None:
        order: Any = "little" if self.dataset.original_encoding[1] else "big"
        start = file.read(8)
        options["pixel_keyword"] = _PIXEL_ELEMENTS[int.from_bytes(start[2:4], order)]
        # Determined from the content, whatever the syntax says: some compressed files omit the types of elements.
        if start[4:6] in _PIXEL_TYPES:
            options["pixel_vr"] = start[4:6].decode("ascii")
            file.read(4)

    def _check_frame(self, file: io.BufferedIOBase, frame: int, options: dict[str, Any]) -> str:
        """Check a compressed frame before decoding; returns the name of the decoder to use, empty for the default."""
        from pydicom.encaps import get_frame
        from pydicom.uid import RLELossless

        place = file.tell()
        # The same call that the decoder makes, so that the checked frame is the decoded one.
        content = get_frame(file, frame, number_of_frames=self.frames, extended_offsets=options.get("extended_offsets"))
        file.seek(place)
        if self.syntax == RLELossless:
            return self._check_runs(content, options["bits_allocated"] // 8)
        found = declared_size(content)
        if found is None or (found.rows, found.columns, found.samples) != (self.rows, self.columns, self.samples):
            raise InputError(
                "is damaged: a compressed frame is not of the size that the header declares", where=str(self.path)
            )
        return ""

    def _check_runs(self, content: bytes, bytes_per_sample: int) -> str:
        size = self.rows * self.columns
        lengths = rle_lengths(content, most=size + _SPARE_RUN)
        if lengths is None or len(lengths) != self.samples * bytes_per_sample:
            raise InputError("is damaged: a compressed frame has other parts than it should", where=str(self.path))
        if not size <= min(lengths) <= max(lengths) <= size + _SPARE_RUN:
            raise InputError(
                "is damaged: a compressed frame is not of the size that the header declares", where=str(self.path)
            )
        # pylibjpeg's decoder panics if the last run is too long; pydicom's slower one truncates it.
        return "" if max(lengths) == size else "pydicom"


def open_dicom(path: Path) -> DicomFile:
    """Read the header of a DICOM file and check what it declares; no pixel is read.

    Raises:
        InputError: pydicom is not installed, or the file is missing, damaged, too large or holds no picture.
    """
    return guarded(path, lambda: _open(path))


def read_patient_id(path: Path, *, remedy: str = "") -> tuple[str, str]:
    """The institution that issued the patient ID of a DICOM file, empty if not given, and the ID.

    It identifies a person: use it only to group files, and never show it.

    Raises:
        InputError: the file cannot be read, or names no patient.
    """

    def read() -> tuple[str, str]:
        dataset = _parse(path, ("PatientID", "IssuerOfPatientID"))[0]
        number = str(dataset.get("PatientID", "") or "").strip()
        if not number:
            raise InputError("has no patient ID in its header", where=str(path), remedy=remedy)
        return str(dataset.get("IssuerOfPatientID", "") or "").strip(), number

    return guarded(path, read)


def guarded(path: Path, action: Callable[[], T]) -> T:
    """The result of `action`; errors of pydicom become one message about the file, without pydicom's text.

    Raises:
        InputError: `action` failed.
    """
    failure = InputError("cannot be decoded as DICOM, it is damaged or incomplete", where=str(path))
    try:
        ignore_warnings([*_NOISY, "dpmed.data.decode"])
        ignore_logs(_NOISY)
        return action()
    except InputError as error:
        failure = InputError(error.problem, where=error.where, remedy=error.remedy)
    except FileNotFoundError:
        failure = InputError("there is no such file", where=str(path))
    except ImportError:
        failure = InputError("needs pydicom to be read", where=str(path), remedy=install_extra("dicom"))
    except Exception:  # noqa: S110 pydicom and its decoders raise many kinds on damaged files; all mean the same here
        pass
    except BaseException as error:  # a panic of a decoder written in Rust is not an `Exception`
        if type(error).__name__ != _PANIC:
            raise
    # Raised outside the handler and not from the error: either would carry pydicom's text as its context.
    raise failure


def _open(path: Path) -> DicomFile:
    dataset, content, place = _parse(path, (*_PIXEL_TAGS, *_VALUE_TAGS, *_SPACE_TAGS))
    implicit, little = dataset.original_encoding
    element = _pixel_element(dataset, content, place)
    if element is None:
        raise InputError("holds no picture (but a report, a plan or a directory)", where=str(path))
    named = dataset.file_meta.get("TransferSyntaxUID", "")
    deflated = named == _DEFLATED
    found = DicomFile(
        path=path,
        dataset=dataset,
        syntax=str(named) if named and not deflated else _syntax_of(implicit, little),
        pixels_at=place,
        inflated=content if deflated else None,
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        samples=int(dataset.SamplesPerPixel),
        frames=int(dataset.get("NumberOfFrames", 1) or 1),
        bits=int(dataset.get("BitsStored", dataset.BitsAllocated)),
        signed=bool(dataset.get("PixelRepresentation", 0)),
        real=element != "PixelData",
        photometric=str(dataset.PhotometricInterpretation),
    )
    _check(found, int(dataset.BitsAllocated))
    high = dataset.get("HighBit")
    high = found.bits - 1 if high is None else int(high)
    # Other decoders put values into the lowest bits themselves.
    if element == "PixelData" and found.syntax in _BITS_AS_STORED and high != found.bits - 1:
        raise InputError(
            f"has its values in the bits up to {high}, not in the lowest {found.bits}, which is not read",
            where=str(path),
        )
    return found


def _pixel_element(dataset: Any, content: bytes, place: int) -> str | None:
    """The name of the element of pixels that begins at a place; None if none does."""
    order: Any = "little" if dataset.original_encoding[1] else "big"
    group, element = (int.from_bytes(content[start : start + 2], order) for start in (place, place + 2))
    return _PIXEL_ELEMENTS.get(element) if group == _PIXEL_GROUP else None


def _syntax_of(implicit: bool, little: bool) -> str:
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    return str(ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian)


def _parse(path: Path, keywords: tuple[str, ...]) -> tuple[Any, bytes, int]:
    """The header, the bytes that it was read from, and where in them it ends, which is where the pixels begin."""
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise InputError(f"is longer than {_MAX_BYTES:,} bytes, which is refused", where=str(path))
    if size > _USUAL_HEADER_BYTES:
        # Most headers end early in the file. Where no pixels begin, or it seems damaged, more of it is read.
        with suppress(Exception):
            found = _parse_start(path, keywords, _USUAL_HEADER_BYTES)
            if _pixel_element(*found) is not None:
                return found
    return _parse_start(path, keywords, min(size, _MAX_HEADER_BYTES))


def _parse_start(path: Path, keywords: tuple[str, ...], count: int) -> tuple[Any, bytes, int]:
    """As `_parse`, from so many bytes of the file."""
    import pydicom

    with path.open("rb") as file:
        content = file.read(count)
    marked = content[_PREAMBLE_BYTES:].startswith(_MARK)
    if marked and _DEFLATED.encode() in content:
        deflated = _parse_deflated(path, keywords)
        if deflated is not None:
            return deflated
    stream = io.BytesIO(content)
    dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(keywords), force=not marked)
    dataset.buffer = None  # else every header would keep what it was read from: of a series, all pixels once more
    return dataset, content, stream.tell()


def _parse_deflated(path: Path, keywords: tuple[str, ...]) -> tuple[Any, bytes, int] | None:
    """As `_parse`, for a file whose header and pixels are deflated together; None if it is not such a file."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.filereader import read_dataset
    from pydicom.tag import BaseTag

    with path.open("rb") as file:
        file.seek(_PREAMBLE_BYTES + len(_MARK))
        meta = read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag.group != _META_GROUP)
        if meta.get("TransferSyntaxUID") != _DEFLATED:
            return None
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        content = inflater.decompress(file.read(), _MAX_INFLATED_BYTES)
    if len(content) >= _MAX_INFLATED_BYTES and not inflater.eof:
        raise InputError(f"inflates to more than {_MAX_INFLATED_BYTES:,} bytes, which is refused", where=str(path))
    stream = io.BytesIO(content)
    tags = [BaseTag(tag) for tag in map(tag_for_keyword, keywords) if tag is not None]
    dataset = read_dataset(
        stream, False, True, stop_when=lambda tag, _vr, _length: tag.group == _PIXEL_GROUP, specific_tags=tags
    )
    dataset.file_meta = meta
    dataset.set_original_encoding(False, True, "iso8859")
    return dataset, content, stream.tell()


def _check(found: DicomFile, allocated: int) -> None:
    where = str(found.path)
    if found.rows * found.columns > MAX_PIXELS or found.rows < 1 or found.columns < 1:
        raise InputError(
            f"declares {found.columns} x {found.rows} pixels; over {MAX_PIXELS:,} are refused", where=where
        )
    if found.samples not in (1, 3) or allocated not in _BITS or not 1 <= found.bits <= allocated or found.frames < 1:
        raise InputError("declares pixels of a kind that is not read", where=where)
    if found.photometric not in (*_GREY, _PALETTE, *_COLOURS) or (found.photometric in _COLOURS) != (found.samples > 1):
        raise InputError("declares colours of a kind that is not read", where=where)
    size = found.rows * found.columns * found.samples * allocated // 8
    if size > _MAX_FRAME_BYTES:
        raise InputError(f"declares {size:,} bytes per frame; over {_MAX_FRAME_BYTES:,} are refused", where=where)
