"""Decodes any file that dpmed reads for a model: the same path for training and everything after it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Shaped

from dpmed.data.decode.dicom import open_dicom
from dpmed.data.decode.dicom_values import bits_of, read_dicom_picture
from dpmed.data.decode.nifti import Volume, read_nifti
from dpmed.data.decode.pictures import decode_picture, picture_bits, resize_picture, to_channels
from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.data.decode.recognise import recognise
from dpmed.data.decode.series import read_series
from dpmed.data.decode.volume import Grid, check_pair, read_intensities
from dpmed.data.decode.window import HU_WINDOW, Depth, to_depth, to_unit
from dpmed.errors import InputError

_EIGHT_BITS = 8
_SPACE = 3
_COLOURS = 3
Files = Path | Sequence[Path]


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """Where values came from.

    Attributes:
        shape: height and width of the picture as displayed, or the sides of the volume as stored.
        affine: from voxel indices of the stored volume to millimetres, RAS+; None for pictures.
        place: what else a NIfTI header says of that, see `Volume`.
    """

    shape: tuple[int, ...]
    affine: Float[np.ndarray, "4 4"] | None = None
    place: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """The input of a model before normalisation, and where it came from.

    Attributes:
        values: `(*size, channels)`, of the type given by the preprocessing.
        geometry: geometry of the file.
    """

    values: Shaped[np.ndarray, "*space channel"]
    geometry: Geometry


def decode_file(source: Files, preprocessing: Preprocessing) -> Decoded:
    """Decode one picture or volume that is a sample by itself.

    Args:
        source: a file of any kind that dpmed reads, whatever its extension; for a volume, also a folder with a series
            of DICOM files, or those files.
        preprocessing: what to bring it to.

    Raises:
        InputError: it cannot be read, or is not what is wanted.
    """
    return decode_sample([source], preprocessing)


def decode_sample(sources: Sequence[Files], preprocessing: Preprocessing) -> Decoded:
    """Decode a sample of one file, or of several that each hold one of its channels.

    Args:
        sources: as for `decode_file`, as many as the preprocessing says.
        preprocessing: what to bring them to.

    Raises:
        InputError: one cannot be read or is not what is wanted, or they do not lie on the same pixels or voxels.
    """
    if len(sources) != preprocessing.files:
        raise ValueError(f"Expected {preprocessing.files=} sources, got {len(sources)=}.")
    if preprocessing.volumes:
        return decode_volumes([open_volume(source) for source in sources], preprocessing)
    paths = [_single(source) for source in sources]
    parts = [_decode_picture(path, preprocessing, file) for file, path in enumerate(paths)]
    first = parts[0].geometry
    for path, part in zip(paths, parts, strict=True):
        if part.geometry.shape != first.shape:
            sides = ["{1} x {0}".format(*shape) for shape in (part.geometry.shape, first.shape)]
            raise InputError(f"has {sides[0]} pixels, but {paths[0].name} has {sides[1]}", where=str(path))
    values = parts[0].values if len(parts) == 1 else np.concatenate([part.values for part in parts], axis=-1)
    return Decoded(values=values, geometry=first)


def decode_volumes(volumes: Sequence[Volume], preprocessing: Preprocessing) -> Decoded:
    """Like `decode_sample`, for open volumes.

    Raises:
        InputError: one has another number of channels, no window where its own is wanted, voxels that are not finite,
            or lies on other voxels than the first.
    """
    volumes = [volumes[0], *(check_pair(volumes[0], other) for other in volumes[1:])]
    parts = [_resampled(volume, preprocessing, file) for file, volume in enumerate(volumes)]
    values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
    shape = tuple(map(int, volumes[0].voxels.shape[:_SPACE]))
    geometry = Geometry(shape=shape, affine=volumes[0].affine, place=volumes[0].place)
    return Decoded(values=values.astype(preprocessing.dtype), geometry=geometry)


def grid_of(preprocessing: Preprocessing) -> Grid:
    """What volumes, and label maps on the same voxels, are resampled to."""
    size = preprocessing.size
    return Grid(shape=(size[0], size[1], size[2]), spacing_mm=preprocessing.spacing_mm)


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
    """Bits per value of a picture of any kind, from its header; more than 16 if they do not determine its range.

    Raises:
        InputError: it cannot be read.
    """
    return bits_of(open_dicom(path)) if recognise(path) == "dicom" else picture_bits(path)


def depth_for(path: Path) -> Depth:
    """The depth that preserves a picture: 8 if that is enough, otherwise 16.

    Raises:
        InputError: it cannot be read.
    """
    return 8 if bits_per_value(path) <= _EIGHT_BITS else 16


def _single(source: Files) -> Path:
    if isinstance(source, Path):
        return source
    if len(source) != 1:
        raise InputError(f"is a series of {len(source)} files, not one picture", where=str(source[0].parent))
    return source[0]


def _decode_picture(path: Path, wanted: Preprocessing, number: int) -> Decoded:
    kind = recognise(path)
    size = wanted.size[0], wanted.size[1]
    channels: Literal[1, 3] = 3 if wanted.channels == _COLOURS and wanted.files == 1 else 1
    if kind == "nifti":
        raise InputError("is a volume, not a picture", where=str(path))
    if kind != "dicom":
        values, shape = decode_picture(
            path,
            size=size,
            channels=channels,
            window=wanted.window_of(number),
            depth=wanted.depth,
            narrow=wanted.narrow,
        )
        return Decoded(values=values, geometry=Geometry(shape=shape))
    file = open_dicom(path)
    if bits_of(file) > _EIGHT_BITS and wanted.depth == _EIGHT_BITS and not wanted.narrow:
        raise InputError(
            "has more than 8 bits per value, of which 8 would be kept",
            where=str(path),
            remedy="Set data.depth = 16 to keep them, or 8 to reduce all pictures to 8 bits.",
        )
    unit = read_dicom_picture(file, window=wanted.window_of(number))
    values = to_depth(to_channels(resize_picture(unit, size=size), channels), wanted.depth)
    return Decoded(values=values, geometry=Geometry(shape=(file.rows, file.columns)))


def _resampled(volume: Volume, wanted: Preprocessing, number: int) -> Float[np.ndarray, "x y z channel"]:
    window, grid = wanted.window_of(number) or HU_WINDOW, grid_of(wanted)
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
    channels = wanted.channels if wanted.files == 1 else 1
    if values.shape[-1] != channels:
        raise InputError(f"has {values.shape[-1]} channels, not {channels}", where=str(volume.path))
    return values
