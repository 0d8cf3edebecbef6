"""Reads untrusted NIfTI files without a floating-point copy.

nibabel parses the header; its declarations are checked against limits and against the file's own size before a voxel is
read. Voxels are then inflated into exactly the declared number of bytes and viewed in their own type, whereas the
obvious way (`get_fdata`) would make a float64 copy four times as large.

Source: NIfTI-1 and NIfTI-2 data formats, https://nifti.nimh.nih.gov/.
"""

import io
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from dpmed.errors import InputError

# The largest scans of the decathlon take half of this.
MAX_BYTES = 1 << 31
_MAX_OFFSET = 1 << 24
_HEADER_BYTES = {348: 352, 540: 544}
# Deflate cannot compress further than this (zlib manual): a larger declared size is false.
_DEFLATE_RATIO = 1032
_GZIP = 16 + zlib.MAX_WBITS
# Read, and inflated, at a time.
_PIECE, _LARGEST_PART = 1 << 16, 1 << 20
# Limits for a sane affine: a scanner is smaller than a kilometre, and a voxel larger than this, in mm³.
_LARGEST_MM, _SMALLEST_VOXEL = 1e6, 1e-9
# Numbers of the units of space, and what turns them into millimetres; a file that names none means millimetres.
_UNIT_BITS, _MM = 7, 2
_TO_MM = {1: 1e3, _MM: 1.0, 3: 1e-3}
_PLACE_FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """Voxels as stored, and their position in space.

    Attributes:
        path: the file, for messages.
        voxels: as stored: `(i, j, k)` or `(i, j, k, channel)`, first axis fastest in memory.
        affine: from voxel indices to millimetres, RAS+.
        slope: real value = stored value x slope + intercept.
        intercept: see slope.
        display: the display range that the header proposes, if any.
        place: the fields of a NIfTI header that say where the voxels are, for other files on the same voxels: programs
            differ in which of them they use. No text is among them. Empty for DICOM.
        unit_mm: the unit of space that the file names, in millimetres; None if it names none, which means millimetres
            unless the file belongs to another one that names its unit.
    """

    path: Path
    voxels: Shaped[np.ndarray, "i j k *channel"]
    affine: Float[np.ndarray, "4 4"]
    slope: float
    intercept: float
    display: tuple[float, float] | None = None
    place: Mapping[str, Any] = field(default_factory=dict)
    unit_mm: float | None = 1.0


def read_nifti(path: Path) -> Volume:
    """Read a `.nii` or `.nii.gz` file.

    Raises:
        InputError: the file is missing, damaged, truncated, declares more than it can hold or than is sensible, or is
            not a real volume with three axes (and channels).
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"is {size:,} bytes long; more than {MAX_BYTES:,} are refused", where=str(path))
        with path.open("rb") as file:
            start = file.read(2)
        if not start:
            raise InputError("is empty", where=str(path))
        if start == b"\x1f\x8b":
            return _read_compressed(path, size)
        with path.open("rb") as file:
            header = _Header(path, file.read(max(_HEADER_BYTES.values())))
        header.check_fits(size)
        voxels = np.memmap(path, header.dtype, "r", offset=header.offset, shape=header.shape, order="F")
        return header.volume(np.asarray(voxels))
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(path)) from error
    except (OSError, zlib.error) as error:
        raise InputError(f"cannot be read, it is damaged or incomplete ({error})", where=str(path)) from error


class _Header:
    """What the header declares, checked as far as it can be by itself."""

    def __init__(self, path: Path, content: bytes) -> None:
        from nibabel.nifti1 import Nifti1Header
        from nibabel.nifti2 import Nifti2Header

        self.path = path
        marks = {int.from_bytes(content[:4], order) for order in ("little", "big")}
        size = next((mark for mark in marks if mark in _HEADER_BYTES), 0)
        if not size or len(content) < size:
            raise InputError("is not a NIfTI file", where=str(path))
        kind = Nifti1Header if size == min(_HEADER_BYTES) else Nifti2Header
        try:
            header = kind.from_fileobj(io.BytesIO(content[:size]), check=False)
            shape = tuple(map(int, header.get_data_shape()))
            self.dtype = header.get_data_dtype()
            self.place = _place(header)
            # As nibabel repairs them when it loads a file: 0 is an old way to say 1, and sizes have no sign.
            header["pixdim"][0] = header["pixdim"][0] or 1
            header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
            slope, intercept = header.get_slope_inter()
            self.affine = np.asarray(header.get_best_affine(), np.float64)
            self.unit_mm = _TO_MM.get(int(header["xyzt_units"]) & _UNIT_BITS)
            self.affine[:3] *= self.unit_mm or 1.0
            self._mirrored = _is_mirrored(header)
            offset = float(header["vox_offset"])
            display = float(header["cal_min"]), float(header["cal_max"])
        except Exception as error:  # nibabel raises many kinds of errors on malicious headers; all mean the same here
            raise InputError(f"has a damaged NIfTI header ({error})", where=str(path)) from error
        self.display = display if np.isfinite(display).all() and display[0] < display[1] else None
        self.slope = 1.0 if slope is None else float(slope)
        self.intercept = 0.0 if intercept is None else float(intercept)
        if not _HEADER_BYTES[size] <= offset <= _MAX_OFFSET:
            raise InputError(f"has its voxels at byte {offset:g}, which no sane file has", where=str(path))
        self.offset = int(offset)
        while len(shape) > 3 and shape[-1] == 1:  # noqa: PLR2004 three spatial axes
            shape = shape[:-1]
        self.shape = shape
        self._check()

    @property
    def end(self) -> int:
        """Where the voxels end, in bytes."""
        count = 1
        for side in self.shape:
            count *= side
        return self.offset + count * self.dtype.itemsize

    def _check(self) -> None:
        where = str(self.path)
        text = "x".join(map(str, self.shape))
        if len(self.shape) not in (3, 4) or any(side < 1 for side in self.shape):
            raise InputError(f"is not a volume: it has the shape {text or 'none'}", where=where)
        if self.dtype.kind not in "iuf" or self.dtype.itemsize > 8:  # noqa: PLR2004 float64
            raise InputError(f"holds voxels of type {self.dtype}, not numbers", where=where)
        if self.end - self.offset > MAX_BYTES:
            raise InputError(
                f"declares {text} voxels of {self.dtype}; over {MAX_BYTES:,} bytes are refused", where=where
            )
        usable = np.isfinite([self.slope, self.intercept]).all() and np.abs(self.affine).max() < _LARGEST_MM
        first, second, third = self.affine[:3, :3].T
        # The volume of a voxel as the product of its edges, since a determinant by elimination may divide by zero.
        if not usable or abs(float(first @ np.cross(second, third))) < _SMALLEST_VOXEL:
            raise InputError("has no usable affine, so its orientation is unknown", where=where)
        if self._mirrored:
            raise InputError(
                "has a qform and an sform that mirror each other, so left and right are unknown",
                where=where,
                remedy="Correct the header: only one of the two can be right.",
            )

    def check_fits(self, size: int, ratio: int = 1) -> None:
        """Refuse a header that declares more than a file of `size` bytes can hold."""
        if self.end > size * ratio:
            text = "x".join(map(str, self.shape))
            raise InputError(
                f"is incomplete: it declares {text} voxels of {self.dtype} but has {size:,} bytes", where=str(self.path)
            )

    def volume(self, voxels: Shaped[np.ndarray, "..."]) -> Volume:
        return Volume(
            path=self.path,
            voxels=voxels,
            affine=self.affine,
            slope=self.slope,
            intercept=self.intercept,
            display=self.display,
            place=self.place,
            unit_mm=self.unit_mm,
        )


def _place(header: Any) -> dict[str, Any]:
    units = int(header["xyzt_units"]) & _UNIT_BITS
    sizes = np.ones(8)
    sizes[:4] = header["pixdim"][:4]  # not the time between volumes
    named = {name: np.array(header[name]) for name in _PLACE_FIELDS}
    return {**named, "pixdim": sizes, "xyzt_units": units if units in _TO_MM else _MM}


def _is_mirrored(header: Any) -> bool:
    """Whether the two affines of a header show a body and its mirror image, which no movement makes the same."""
    with suppress(Exception):  # of the one that is not used, nothing else matters
        both = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
        if all(one is not None for one in both):
            first, second = (float(np.linalg.det(one[:3, :3])) for one in both)
            return first * second < 0
    return False


def _read_compressed(path: Path, size: int) -> Volume:
    with path.open("rb") as file:
        start = np.empty(max(_HEADER_BYTES.values()), np.uint8)
        header = _Header(path, start[: _inflate(file, start)].tobytes())
        header.check_fits(size, _DEFLATE_RATIO)
        file.seek(0)
        # Takes no memory before it is filled, should the header declare more than there is.
        content = np.empty(header.end, np.uint8)
        found = _inflate(file, content, to_end=True)
    if found < header.end:
        raise InputError(f"is incomplete: it declares {header.end:,} bytes but holds {found:,}", where=str(path))
    content.flags.writeable = False
    flat = np.frombuffer(content, header.dtype, offset=header.offset)
    return header.volume(flat.reshape(header.shape, order="F"))


def _inflate(file: BinaryIO, target: UInt8[np.ndarray, " byte"], *, to_end: bool = False) -> int:
    """Fill `target` with the first bytes that a gzip file holds, piece by piece, so that there is one copy of them.

    Args:
        file: the compressed file.
        target: to fill.
        to_end: whether these should be all bytes: then the checksum that follows them is compared.

    Returns:
        How many bytes were filled; fewer than all if the file ends earlier.

    Raises:
        zlib.error: the file is damaged.
    """
    stream, rest, filled = zlib.decompressobj(_GZIP), b"", 0
    while filled < len(target):
        if stream.eof:
            stream, rest = zlib.decompressobj(_GZIP), stream.unused_data
        given = rest or file.read(_PIECE)
        part = stream.decompress(given, min(len(target) - filled, _LARGEST_PART))
        target[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
        filled += len(part)
        if not given and not part:
            break
        rest = stream.unconsumed_tail
    while to_end and filled == len(target) and not stream.eof:
        given = rest or file.read(_PIECE)
        if stream.decompress(given, 1):  # more than the header declares; of no use here
            break
        if not given:
            raise zlib.error("it ends before its checksum")
        rest = stream.unconsumed_tail
    return filled
