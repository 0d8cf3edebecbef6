"""From any file that dpmed reads to what a model takes: the one way, for training and for everything after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from dpmed.data.decode.dicom import open_dicom
from dpmed.data.decode.dicom_values import bits_of, read_dicom_picture
from dpmed.data.decode.nifti import Volume, read_nifti
from dpmed.data.decode.pictures import decode_sized, picture_bits, resize_picture, to_channels
from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.data.decode.recognise import recognise
from dpmed.data.decode.series import read_series
from dpmed.data.decode.volume import Grid, read_intensities
from dpmed.data.decode.window import HU_WINDOW, Depth, to_depth, to_unit
from dpmed.errors import InputError

_EIGHT_BITS = 8
_SPACE = 3
Files = Path | Sequence[Path]


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """Where values came from.

    Attributes:
        shape: height and width of the picture as it is looked at, or the sides of the volume as stored.
        affine: from voxel indices of the stored volume to millimetres, RAS+; None for pictures.
    """

    shape: tuple[int, ...]
    affine: Float[np.ndarray, "4 4"] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """What a model takes, not normalised, and where it came from.

    Attributes:
        values: `(*size, channels)`, of the type that the preprocessing says.
        geometry: of the file.
    """

    values: Shaped[np.ndarray, "*space channel"]
    geometry: Geometry


def decode_file(source: Files, preprocessing: Preprocessing) -> Decoded:
    """Decode one picture or volume.

    Args:
        source: a file of any kind that dpmed reads, whatever its ending; for a volume also a folder with a series of
            DICOM files, or those files.
        preprocessing: what to bring it to.

    Raises:
        InputError: it cannot be read, or is not what is wanted.
    """
    if preprocessing.volumes:
        return decode_volume(open_volume(source), preprocessing)
    if not isinstance(source, Path):
        if len(source) != 1:
            raise InputError(f"is a series of {len(source)} files, not one picture", where=str(source[0].parent))
        source = source[0]
    return _decode_picture(source, preprocessing)


def open_volume(source: Files) -> Volume:
    """A volume as stored, from NIfTI or DICOM, whatever the ending.

    Raises:
        InputError: it cannot be read, or is a picture.
    """
    single = source if isinstance(source, Path) else source[0] if len(source) == 1 else None
    if single is None or single.is_dir():
        return read_series(source)
    kind = recognise(single)
    if kind == "dicom":
        return read_series(single)
    if kind == "picture":
        raise InputError("is a picture, not a volume", where=str(single))
    return read_nifti(single)


def bits_per_value(path: Path) -> int:
    """Bits per value of a picture of any kind, by its header; over 16 where its range is not told by them.

    Raises:
        InputError: it cannot be read.
    """
    return bits_of(open_dicom(path)) if recognise(path) == "dicom" else picture_bits(path)


def depth_for(path: Path) -> Depth:
    """The depth that keeps what a picture holds: 8 where that is enough, else 16.

    Raises:
        InputError: it cannot be read.
    """
    return 8 if bits_per_value(path) <= _EIGHT_BITS else 16


def _decode_picture(path: Path, wanted: Preprocessing) -> Decoded:
    kind = recognise(path)
    size = wanted.size[0], wanted.size[1]
    if kind == "nifti":
        raise InputError("is a volume, not a picture", where=str(path))
    if kind != "dicom":
        values, shape = decode_sized(
            path,
            size=size,
            channels=1 if wanted.channels == 1 else 3,
            window=wanted.window,
            depth=wanted.depth,
            narrow=wanted.narrow,
        )
        return Decoded(values=values, geometry=Geometry(shape=shape))
    file = open_dicom(path)
    if bits_of(file) > _EIGHT_BITS and wanted.depth == _EIGHT_BITS and not wanted.narrow:
        raise InputError(
            "has more than 8 bits per value, of which 8 would be kept",
            where=str(path),
            remedy="Set data.depth = 16 to keep them, or 8 to bring all pictures to 8 bits.",
        )
    unit = read_dicom_picture(file, window=wanted.window)
    values = to_depth(to_channels(resize_picture(unit, size=size), wanted.channels), wanted.depth)
    return Decoded(values=values, geometry=Geometry(shape=(file.rows, file.columns)))


def decode_volume(volume: Volume, wanted: Preprocessing) -> Decoded:
    """Bring an opened volume to what is wanted.

    Raises:
        InputError: it has another number of channels, no window where its own is wanted, or voxels that are not finite.
    """
    grid = Grid(shape=(wanted.size[0], wanted.size[1], wanted.size[2]), spacing_mm=wanted.spacing_mm)
    window = wanted.window or HU_WINDOW
    if window == "percentiles":
        values = read_intensities(volume, grid, window=None)
    elif window == "header":
        if volume.display is None:
            raise InputError(
                "has no window in its header", where=str(volume.path), remedy="Set data.window to a range."
            )
        values = to_unit(read_intensities(volume, grid, window=volume.display), volume.display)
    else:
        values = read_intensities(volume, grid, window=(float(window[0]), float(window[1])))
    if values.shape[-1] != wanted.channels:
        raise InputError(f"has {values.shape[-1]} channels, not {wanted.channels}", where=str(volume.path))
    shape = tuple(map(int, volume.voxels.shape[:_SPACE]))
    return Decoded(values=values.astype(wanted.dtype), geometry=Geometry(shape=shape, affine=volume.affine))
