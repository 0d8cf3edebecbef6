"""Masks back in the grid of the file that they are of: its size, order of axes, directions and place in space."""

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped
from PIL import Image

from dpmed.files import write_bytes

_ORIENTATION_TAG = 0x0112
_TURNED_SIDEWAYS = (5, 6, 7, 8)
_BYTE_CLASSES = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnGrid:
    """The pixels or voxels of one file.

    Attributes:
        shape: `(height, width)` of a picture as it is shown, or the stored axes of a volume.
        affine: from a volume's voxel indices to millimetres, RAS+; None for pictures.
        orientation: for each stored axis the canonical axis it runs along, and 1 or -1 for its direction.
        resampled: sides on canonical axes after resampling, before the middle was cut out or padded.
    """

    shape: tuple[int, ...]
    affine: Float[np.ndarray, "4 4"] | None = None
    orientation: Int[np.ndarray, "3 2"] | None = None
    resampled: tuple[int, ...] | None = None

    def restore(self, mask: Shaped[np.ndarray, "*space"]) -> Shaped[np.ndarray, "*own"]:
        """A mask of class numbers on the file's own grid, by nearest neighbours; 0 where the network saw nothing."""
        if self.orientation is None:
            return _nearest(mask, self.shape)
        from nibabel.orientations import apply_orientation, ornt_transform

        whole = _unfit(mask, self.resampled or mask.shape)
        canonical = np.zeros(3, int)
        for axis, (place, _) in enumerate(self.orientation):
            canonical[place] = self.shape[axis]
        near = _nearest(whole, tuple(int(side) for side in canonical))
        standard = np.array([[0, 1], [1, 1], [2, 1]])
        return np.ascontiguousarray(apply_orientation(near, ornt_transform(standard, self.orientation)))


def picture_grid(path: Path) -> OwnGrid:
    """The grid of a picture that has been decoded before, upright as its EXIF says."""
    with Image.open(path) as image:
        width, height = image.size
        if image.getexif().get(_ORIENTATION_TAG, 1) in _TURNED_SIDEWAYS:
            width, height = height, width
    return OwnGrid(shape=(height, width))


def volume_grid(
    shape: tuple[int, ...],
    affine: Float[np.ndarray, "4 4"],
    orientation: Int[np.ndarray, "3 2"],
    *,
    resampled: tuple[int, ...],
) -> OwnGrid:
    """The grid of a volume: its stored sides, affine and orientation, and its sides after resampling."""
    return OwnGrid(shape=tuple(shape), affine=affine, orientation=orientation, resampled=resampled)


def write_mask(folder: Path, name: str, mask: Shaped[np.ndarray, "*own"], grid: OwnGrid | None) -> str:
    """Write class numbers beside each other: `.nii.gz` for volumes, PNG for pictures, `.npy` for arrays.

    Args:
        folder: where to.
        name: without ending.
        mask: on the file's own grid.
        grid: of the file; None for an array.

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
    from nibabel.nifti1 import Nifti1Image

    image = Nifti1Image(small, grid.affine)
    image.header.set_xyzt_units("mm")
    # No time and no name in the archive: the same mask gives the same bytes.
    write_bytes(folder / f"{name}.nii.gz", gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
    return f"{name}.nii.gz"


def write_array(folder: Path, name: str, values: Shaped[np.ndarray, "..."]) -> str:
    """Write an array as `.npy`; gives the file's name.

    Raises:
        RunError: it cannot be written.
    """
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, allow_pickle=False)
    write_bytes(folder / f"{name}.npy", buffer.getvalue())
    return f"{name}.npy"


def _nearest(mask: Shaped[np.ndarray, "*space"], shape: tuple[int, ...]) -> Shaped[np.ndarray, "*wanted"]:
    """The value whose cell the middle of each new cell lies in."""
    for axis, (have, want) in enumerate(zip(mask.shape, shape, strict=True)):
        places = ((2 * np.arange(want) + 1) * have) // (2 * want)
        mask = np.take(mask, places, axis=axis)
    return mask


def _unfit(mask: Shaped[np.ndarray, "x y z"], shape: tuple[int, ...]) -> Shaped[np.ndarray, "a b c"]:
    """The inverse of cropping and padding about the centre."""
    if mask.shape == shape:
        return mask
    out = np.zeros(shape, mask.dtype)
    source, target = [], []
    for have, want in zip(mask.shape, shape, strict=True):
        size = min(have, want)
        source.append(slice((have - size) // 2, (have - size) // 2 + size))
        target.append(slice((want - size) // 2, (want - size) // 2 + size))
    out[tuple(target)] = mask[tuple(source)]
    return out
