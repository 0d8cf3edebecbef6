"""Decodes a file to the values that the network was trained on, and maps masks back to the file's own grid."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from dpmed.data.decode.files import decode_file, decode_volumes, grid_of, open_volume
from dpmed.data.decode.volume import resampled_shapes
from dpmed.errors import InputError
from dpmed.inference.description import Preprocessing
from dpmed.inference.inputs import ARRAY_ENDINGS
from dpmed.inference.volumes.own_grid import OwnGrid
from dpmed.tensors import npy_header

_MAX_ARRAY_BYTES = 1 << 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """One input.

    Attributes:
        values: `(*space, channel)` as stored in training: of the network's size, or larger if a volume is predicted in
            windows.
        grid: maps back to the file's own voxels; None for arrays, which have no other grid.
    """

    values: Shaped[np.ndarray, "*space channel"]
    grid: OwnGrid | None


def decode_input(path: Path, done: Preprocessing, *, windows: bool = False) -> Decoded:
    """Read a file as training would have read it.

    Args:
        path: a picture, a volume (also a folder with a series of DICOM files), or an `.npy` array of stored values.
        done: the preprocessing in training.
        windows: keep the whole of a volume resampled to a voxel size, which training cropped to its middle.

    Raises:
        InputError: the file is missing, damaged, too large or of another kind than the model was trained on.
    """
    if not path.exists():
        raise InputError("there is no such file", where=str(path))
    if path.name.lower().endswith(ARRAY_ENDINGS):
        return Decoded(values=_read_array(path, done), grid=None)
    if done.arrays_only is not None:
        remedy = "Give .npy arrays of values as stored."
        raise InputError(f"cannot be read as in training: {done.arrays_only}", where=str(path), remedy=remedy)
    if done.kind == "volume":
        return _read_volume(path, done, windows=windows)
    found = decode_file(path, done.decoding)
    values = found.values
    if done.full_scale is not None:
        scaled = values * np.float32(done.full_scale / done.decoding.scale)
        values = np.rint(scaled) if done.stored_as == "uint8" else scaled
    return Decoded(values=values.astype(done.stored_as), grid=OwnGrid(shape=found.geometry.shape))


def _read_volume(path: Path, done: Preprocessing, *, windows: bool) -> Decoded:
    volume = open_volume(path)
    decoding = done.decoding
    _, resampled = resampled_shapes(volume, grid_of(decoding))
    if windows:
        # The size of the volume at this spacing, but no smaller than a window.
        decoding = replace(decoding, size=tuple(map(max, resampled, done.size)))
    found = decode_volumes([volume], decoding)
    values = np.rint(found.values) if done.stored_as == "uint8" else found.values
    own = found.geometry
    grid = OwnGrid(shape=own.shape, affine=own.affine, place=own.place, resampled=resampled)
    return Decoded(values=values.astype(done.stored_as), grid=grid)


def _read_array(path: Path, done: Preprocessing) -> Shaped[np.ndarray, "*space channel"]:
    wanted = (*done.size, done.channels)
    try:
        if path.stat().st_size > _MAX_ARRAY_BYTES:
            raise InputError("is far larger than the model's input", where=str(path))
        with path.open("rb") as file:
            shape, is_fortran, dtype = npy_header(file)
            if shape not in (wanted, wanted[:-1] if done.channels == 1 else wanted) or dtype.kind not in "uif":
                raise InputError(
                    f"is {dtype}{list(shape)}, but the model takes numbers {list(wanted)}", where=str(path)
                )
            values = np.frombuffer(file.read(int(np.prod(shape)) * dtype.itemsize), dtype)
            values = values.reshape(shape[::-1]).T if is_fortran else values.reshape(shape)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"is not a readable .npy array ({error})", where=str(path)) from error
    if not np.isfinite(values).all():
        raise InputError("holds values that are not finite", where=str(path))
    return np.ascontiguousarray(values.reshape(wanted), np.float32)
