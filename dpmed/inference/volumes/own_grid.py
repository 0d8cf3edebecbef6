"""Maps masks back to the grid of their file: its size, axis order, directions and position in space."""

import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from dpmed.data.decode.volume import fit_about_centre
from dpmed.files import write_bytes

_BYTE_CLASSES = 256
_SAME_PLACE_MM = 1e-2


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnGrid:
    """The pixels or voxels of one file.

    Attributes:
        shape: `(height, width)` of a picture as displayed, or the stored axes of a volume.
        affine: maps a volume's voxel indices to millimetres, RAS+; None for pictures.
        place: fields of the volume's own NIfTI header that say the same, each in its way; empty if it has none.
        resampled: sides on canonical axes after resampling, before cropping or padding about the centre; None if
            neither was done.
    """

    shape: tuple[int, ...]
    affine: Float[np.ndarray, "4 4"] | None = None
    place: Mapping[str, Any] = field(default_factory=dict)
    resampled: tuple[int, ...] | None = None

    def restore(self, mask: Shaped[np.ndarray, "*space"]) -> Shaped[np.ndarray, "*own"]:
        """A mask of class numbers on the file's own grid, by nearest neighbour; 0 where the network saw nothing."""
        if self.affine is None:
            return _nearest(mask, self.shape)
        from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

        orientation = io_orientation(self.affine)
        whole = fit_about_centre(mask, self.resampled or mask.shape, fill=0.0)
        canonical = [0, 0, 0]
        for axis, (place, _) in enumerate(orientation.astype(int)):
            canonical[place] = self.shape[axis]
        near = _nearest(whole, tuple(canonical))
        standard = np.array([[0, 1], [1, 1], [2, 1]])
        return np.ascontiguousarray(apply_orientation(near, ornt_transform(standard, orientation)))


def write_mask(folder: Path, name: str, mask: Shaped[np.ndarray, "*own"], grid: OwnGrid | None) -> str:
    """Write a mask: `.nii.gz` for volumes, PNG for pictures, `.npy` for arrays.

    Args:
        folder: where to write.
        name: file name without extension.
        mask: class numbers on the file's own grid.
        grid: grid of the file; None for an array.

    Returns:
        The file's name.

    Raises:
        RunError: it cannot be written.
    """
    small = mask.astype(np.uint8) if mask.max(initial=0) < _BYTE_CLASSES else mask.astype(np.int32)
    if grid is None:
        return write_array(folder, name, small)
    if grid.affine is None:
        buffer = io.BytesIO()
        Image.fromarray(small if small.dtype == np.uint8 else small.astype(np.uint16)).save(buffer, "PNG")
        write_bytes(folder / f"{name}.png", buffer.getvalue())
        return f"{name}.png"
    # No time and no name in the archive, so that the same mask gives the same bytes.
    write_bytes(folder / f"{name}.nii.gz", gzip.compress(_nifti(small, grid), compresslevel=6, mtime=0))
    return f"{name}.nii.gz"


def _nifti(mask: Shaped[np.ndarray, "i j k"], grid: OwnGrid) -> bytes:
    """A NIfTI file that lies where its scan lies, whichever fields of the header a program goes by."""
    from nibabel.nifti1 import Nifti1Header, Nifti1Image

    header = Nifti1Header()
    header.set_data_shape(mask.shape)
    header.set_data_dtype(mask.dtype)
    if grid.place:
        for name, value in grid.place.items():
            header[name] = value
    elif grid.affine is not None:
        header.set_xyzt_units("mm")
        header.set_sform(grid.affine, "scanner")
        # Slices of a tilted gantry form no box, which is all that a qform can describe.
        header.set_qform(grid.affine, "scanner")
        if not np.allclose(header.get_qform(), grid.affine, atol=_SAME_PLACE_MM):
            header["qform_code"] = 0
    return bytes(Nifti1Image(mask, header.get_best_affine(), header).to_bytes())


def write_array(folder: Path, name: str, values: Shaped[np.ndarray, "..."]) -> str:
    """Write an array as `.npy`; returns the file's name.

    Raises:
        RunError: it cannot be written.
    """
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, allow_pickle=False)
    write_bytes(folder / f"{name}.npy", buffer.getvalue())
    return f"{name}.npy"


def _nearest(mask: Shaped[np.ndarray, "*space"], shape: tuple[int, ...]) -> Shaped[np.ndarray, "*wanted"]:
    """The value of the old cell that contains the centre of each new cell."""
    for axis, (have, want) in enumerate(zip(mask.shape, shape, strict=True)):
        places = ((2 * np.arange(want) + 1) * have) // (2 * want)
        mask = np.take(mask, places, axis=axis)
    return mask
