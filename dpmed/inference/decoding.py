"""From one file to the values that the network was trained on, and back from its masks to the file's own grid."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from dpmed.data.decode.dicom import DICOM_ENDINGS, read_dicom
from dpmed.data.decode.nifti import NIFTI_ENDINGS, Volume, read_nifti
from dpmed.data.decode.pictures import decode_picture, resize_picture, window_to_bytes
from dpmed.data.decode.volume import Grid, orientation_of, read_intensities, spacing_of
from dpmed.data.image_files import DEEP_WINDOW, HU_WINDOW
from dpmed.errors import InputError
from dpmed.inference.description import Preprocessing
from dpmed.inference.inputs import ARRAY_ENDINGS
from dpmed.inference.own_grid import OwnGrid, picture_grid, volume_grid

_BYTE = 255.0
_MAX_ARRAY_BYTES = 1 << 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """One input.

    Attributes:
        values: `(*space, channel)` as training stored them: of the network's size, or larger where a volume is
            predicted in windows.
        grid: leads back to the file's own voxels; None for arrays, which have no other, and where nobody asked.
    """

    values: Shaped[np.ndarray, "*space channel"]
    grid: OwnGrid | None


def decode_input(path: Path, done: Preprocessing, *, windows: bool = False, needs_grid: bool = True) -> Decoded:
    """Read a file as training would have read it.

    Args:
        path: a picture, a volume, or an `.npy` array of stored values.
        done: what was done at training.
        windows: keep the whole of a volume that was resampled by spacing, where training cut out its middle.
        needs_grid: whether masks are to go back; a picture's header is read once more for it.

    Raises:
        InputError: the file is missing, damaged, too large or of another kind than the model was trained on.
    """
    if not path.is_file():
        raise InputError("there is no such file", where=str(path))
    name = path.name.lower()
    if name.endswith(ARRAY_ENDINGS):
        return Decoded(values=_read_array(path, done), grid=None)
    if done.arrays_only is not None:
        remedy = "Give .npy arrays of values as stored."
        raise InputError(f"cannot be read as in training: {done.arrays_only}", where=str(path), remedy=remedy)
    is_volume = name.endswith(NIFTI_ENDINGS)
    if is_volume != (done.kind == "volume"):
        raise InputError(
            f"is a {'volume' if is_volume else 'picture'}, but the model takes {done.kind}s", where=str(path)
        )
    return _read_volume(path, done, windows=windows) if is_volume else _read_picture(path, done, needs_grid)


def _read_picture(path: Path, done: Preprocessing, needs_grid: bool) -> Decoded:
    height, width = done.size
    if done.channels not in (1, 3):
        raise InputError(f"the model takes {done.channels} channels, which no picture has", where=str(path))
    if path.name.lower().endswith(DICOM_ENDINGS) or _looks_like_dicom(path):
        grey = read_dicom(path)
        small = resize_picture(window_to_bytes(grey, done.window or HU_WINDOW)[..., None], size=(height, width))
        pixels = np.repeat(small, done.channels, axis=-1)
        grid: OwnGrid | None = OwnGrid(shape=grey.shape)
    else:
        channels: Literal[1, 3] = 1 if done.channels == 1 else 3
        pixels = decode_picture(path, size=(height, width), channels=channels, window=done.window or DEEP_WINDOW)
        grid = picture_grid(path) if needs_grid else None
    if done.full_scale is None:
        return Decoded(values=pixels.astype(done.stored_as), grid=grid)
    scaled = pixels * np.float32(done.full_scale / _BYTE)
    rounded = np.rint(scaled) if done.stored_as == "uint8" else scaled
    return Decoded(values=rounded.astype(done.stored_as), grid=grid)


def _read_volume(path: Path, done: Preprocessing, *, windows: bool) -> Decoded:
    volume = read_nifti(path)
    a, b, c = done.size
    grid = Grid(shape=(a, b, c), spacing_mm=done.spacing_mm)
    resampled = _resampled_sides(volume, grid)
    if windows and done.spacing_mm is not None:
        # As large as the volume is at this spacing, and no smaller than a window.
        x, y, z = (max(side, least) for side, least in zip(resampled, done.size, strict=True))
        grid = Grid(shape=(x, y, z), spacing_mm=done.spacing_mm)
    values = read_intensities(volume, grid, window=done.window)
    if values.shape[-1] != done.channels:
        raise InputError(f"has {values.shape[-1]} channels, but the model takes {done.channels}", where=str(path))
    rounded = np.rint(values) if done.stored_as == "uint8" else values
    return Decoded(
        values=rounded.astype(done.stored_as),
        grid=volume_grid(volume.voxels.shape[:3], volume.affine, orientation_of(volume), resampled=resampled),
    )


def _resampled_sides(volume: Volume, grid: Grid) -> tuple[int, int, int]:
    """Sides on canonical axes after resampling, before cropping and padding."""
    sides = list(grid.shape)
    if grid.spacing_mm is not None:
        orientation: Int[np.ndarray, "3 2"] = orientation_of(volume)
        spacing: Float[np.ndarray, "3"] = spacing_of(volume)
        for axis, (place, _) in enumerate(orientation):
            sides[place] = max(1, round(volume.voxels.shape[axis] * float(spacing[axis]) / grid.spacing_mm[place]))
    return sides[0], sides[1], sides[2]


def _read_array(path: Path, done: Preprocessing) -> Shaped[np.ndarray, "*space channel"]:
    wanted = (*done.size, done.channels)
    try:
        if path.stat().st_size > _MAX_ARRAY_BYTES:
            raise InputError("is far larger than the model's input", where=str(path))
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in readers:
                raise InputError(f"is an .npy file of unknown version {version}", where=str(path))
            shape, is_fortran, dtype = readers[version](file)
            if shape not in (wanted, wanted[:-1] if done.channels == 1 else wanted) or dtype.kind not in "uif":
                raise InputError(
                    f"is {dtype}{list(shape)}, but the model takes numbers {list(wanted)}", where=str(path)
                )
            values = np.frombuffer(file.read(int(np.prod(shape)) * dtype.itemsize), dtype)
            values = values.reshape(shape[::-1]).T if is_fortran else values.reshape(shape)
    except (ValueError, SyntaxError, OSError, EOFError) as error:
        raise InputError(f"is no readable .npy array ({error})", where=str(path)) from error
    if not np.isfinite(values).all():
        raise InputError("holds values that are not finite", where=str(path))
    return np.ascontiguousarray(values.reshape(wanted), np.float32)


def _looks_like_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
