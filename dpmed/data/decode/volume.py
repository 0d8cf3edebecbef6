"""Volumes in one orientation, on one grid, with values in one range.

Every volume is returned with its axes from left to right, back to front and foot to head (RAS+, nearest to the affine),
whatever its stored order and direction. It is first resampled, slice by slice in stored order, and reoriented
afterwards, when it is small. The filter is Pillow's anti-aliased triangle: linear interpolation when enlarging, a
weighted mean over all voxels that fall into an output voxel when shrinking.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from PIL import Image

from dpmed.data.decode.nifti import Volume
from dpmed.data.decode.window import percentile_window, to_unit
from dpmed.errors import InputError

Shape3 = tuple[int, int, int]
_SPACING_TOLERANCE = 0.01
# Of a voxel. Programs that count from a voxel's corner and from its centre are half a voxel apart.
_SAME_PLACE = 0.75
_COUNTABLE = 256
_MAX_CHANNELS = 64
_WHOLE = 1e-3  # labels saved from floating-point numbers get a scale in the header, by which 1 becomes 1.00002
_MAX_VOXELS = 1 << 28  # a gigabyte while resampling


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grid to which volumes are resampled.

    Attributes:
        shape: voxels from left to right, back to front and foot to head.
        spacing_mm: size of a voxel along these, or None to stretch the whole volume to `shape`.
    """

    shape: Shape3
    spacing_mm: tuple[float, float, float] | None = None


def orientation_of(volume: Volume) -> Int[np.ndarray, "3 2"]:
    """For each stored axis, the canonical axis along which it runs, and 1 or -1 for its direction.

    Raises:
        InputError: the volume has no usable affine.
    """
    from nibabel.orientations import io_orientation

    orientation = io_orientation(volume.affine)
    if not np.isfinite(orientation).all():
        raise InputError("has no usable affine, so its orientation is unknown", where=str(volume.path))
    return orientation.astype(np.int64)


def spacing_of(volume: Volume) -> Float[np.ndarray, "3"]:
    """Size of a voxel along each stored axis, mm."""
    return np.sqrt((volume.affine[:3, :3] ** 2).sum(axis=0))


def read_intensities(
    volume: Volume, grid: Grid, *, window: tuple[float, float] | None
) -> Float[np.ndarray, "x y z channel"]:
    """The values of a volume on the grid.

    Args:
        volume: three axes, or four with channels last.
        grid: to resample to.
        window: values are clipped to this range before resampling; None maps the 0.5th to 99.5th percentile of each
            channel of the resampled volume to 0 to 1, for values without a unit.

    Raises:
        InputError: a voxel is not finite.
    """
    channels = volume.voxels[..., None] if volume.voxels.ndim == 3 else volume.voxels  # noqa: PLR2004 three axes
    if channels.shape[-1] > _MAX_CHANNELS:
        raise InputError(f"has {channels.shape[-1]} channels; over {_MAX_CHANNELS} are refused", where=str(volume.path))
    out = np.empty((*grid.shape, channels.shape[-1]), np.float32)
    scaled = volume.slope != 1.0 or volume.intercept != 0.0

    def prepare(part: Shaped[np.ndarray, "a b"]) -> Float[np.ndarray, "a b"]:
        with np.errstate(over="ignore", invalid="ignore"):  # the result is checked below
            values = part.astype(np.float32)
            if scaled:
                values = values * np.float32(volume.slope) + np.float32(volume.intercept)
        if (scaled or part.dtype.kind == "f") and not np.isfinite(values).all():
            raise InputError("holds voxels that are not finite (NaN, infinite or huge)", where=str(volume.path))
        return values if window is None else np.clip(values, np.float32(window[0]), np.float32(window[1]), out=values)

    for channel in range(channels.shape[-1]):
        values = _resample(channels[..., channel], volume, grid, prepare)
        if window is None:
            values = to_unit(values, percentile_window(values))
        fill = float(values.min()) if window is None else window[0]
        out[..., channel] = fit_about_centre(values, grid.shape, fill=fill)
    return out


def read_labels(volume: Volume, grid: Grid, *, classes: int) -> UInt8[np.ndarray, "x y z"]:
    """A label map on the grid: each voxel gets the class that covers the largest part of it.

    Args:
        volume: three axes of class numbers.
        grid: to resample to.
        classes: label values are 0 to `classes` - 1.

    Raises:
        InputError: a value is not a class number.
    """
    if volume.voxels.ndim != 3:  # noqa: PLR2004 three axes
        raise InputError("is a label map with channels; one class number per voxel is expected", where=str(volume.path))
    best = np.zeros(resampled_shapes(volume, grid)[1], np.uint8)
    share = np.full(best.shape, -1.0, np.float32)
    for stored, value in _label_values(volume, classes).items():

        def prepare(part: Shaped[np.ndarray, "a b"], stored: float = stored) -> Float[np.ndarray, "a b"]:
            return (part == stored).astype(np.float32)

        part = _resample(volume.voxels, volume, grid, prepare)
        # A comparison with a margin: if two classes tie, the lower one wins, not rounding.
        better = part > share + np.float32(1e-5)
        best[better], share[better] = value, part[better]
    return fit_about_centre(best, grid.shape, fill=0.0)


def fit_about_centre(
    values: Shaped[np.ndarray, "x y z"], shape: tuple[int, ...], *, fill: float
) -> Shaped[np.ndarray, "a b c"]:
    """The values cropped, or padded with `fill`, about the centre; with the shape from before, back in their places."""
    if values.shape == shape:
        return values
    out = np.full(shape, fill, values.dtype)
    source, target = [], []
    for have, want in zip(values.shape, shape, strict=True):
        size = min(have, want)
        source.append(slice((have - size) // 2, (have - size) // 2 + size))
        target.append(slice((want - size) // 2, (want - size) // 2 + size))
    out[tuple(target)] = values[tuple(source)]
    return out


def check_pair(image: Volume, label: Volume) -> Volume:
    """Refuse an image and a label map that do not share the same voxels, in whatever order each file stores them.

    Returns:
        The label map as its file means it: if that names no unit of space, with the image's, whose affine it was most
        likely given; if voxel sizes differ by 1 % at most, as when one was rounded, with the image's.

    Raises:
        InputError: shape, spacing or place differ.
    """
    if label.unit_mm is None and image.unit_mm is not None:
        affine = np.diag([*[image.unit_mm] * 3, 1.0]) @ label.affine
        label = replace(label, affine=affine, unit_mm=image.unit_mm)
    (sides, affine), (label_sides, label_affine) = _canonical(image), _canonical(label)
    if sides != label_sides:
        texts = ["x".join(map(str, shape)) for shape in (label_sides, sides)]
        raise InputError(
            f"has {texts[0]} voxels, but its image {image.path.name} has {texts[1]}", where=str(label.path)
        )
    spacing, label_spacing = (np.linalg.norm(one[:3, :3], axis=0) for one in (affine, label_affine))
    if not np.allclose(spacing, label_spacing, rtol=_SPACING_TOLERANCE):
        texts = [" x ".join(f"{side:.4g}" for side in one) for one in (label_spacing, spacing)]
        raise InputError(
            f"has voxels of {texts[0]} mm, but its image {image.path.name} has {texts[1]} mm", where=str(label.path)
        )
    order = orientation_of(label)[:, 0]
    label = replace(label, affine=label.affine @ np.diag([*(spacing / label_spacing)[order], 1.0]))
    label_affine = _canonical(label)[1]
    corners = np.array(list(itertools.product(*[(0.0, side - 1.0) for side in sides], [1.0])))
    apart = np.abs(np.linalg.solve(affine, label_affine @ corners.T) - corners.T).max()
    if apart > _SAME_PLACE:
        raise InputError(
            f"is not aligned with its image {image.path.name}: by the headers they are up to {apart:.3g} voxels apart",
            where=str(label.path),
            remedy="Resample one to the other or, if only a header is wrong, correct it.",
        )
    return label


def _canonical(volume: Volume) -> tuple[tuple[int, ...], Float[np.ndarray, "4 4"]]:
    """Sides and affine of a volume once its axes are in canonical order and direction."""
    from nibabel.orientations import inv_ornt_aff

    orientation, stored = orientation_of(volume), volume.voxels.shape[:3]
    sides = tuple(stored[axis] for axis in np.argsort(orientation[:, 0]))
    return sides, volume.affine @ inv_ornt_aff(orientation, stored)


def _label_values(volume: Volume, classes: int) -> dict[float, int]:
    """The stored values that occur and the class number of each, in increasing order."""
    stored = _distinct(volume.voxels)
    with np.errstate(invalid="ignore"):
        scaled = stored * volume.slope + volume.intercept
        values = np.rint(scaled)
        is_whole = bool((np.abs(scaled - values) < _WHOLE).all()) and len(np.unique(values)) == len(values)
    if not is_whole:
        raise InputError(
            "holds label values that are not whole numbers",
            where=str(volume.path),
            remedy="Save class numbers as integers, without a scale in the header.",
        )
    if values.min() < 0 or values.max() >= classes:
        wrong = values.min() if values.min() < 0 else values.max()
        raise InputError(
            f"holds the label value {wrong:g}, but the classes are 0 to {classes - 1}",
            where=str(volume.path),
            remedy="Correct the file, or name all classes in data.class_names.",
        )
    return {float(one): int(value) for one, value in sorted(zip(stored, values, strict=True), key=lambda pair: pair[1])}


def _distinct(voxels: Shaped[np.ndarray, "i j k"]) -> Float[np.ndarray, " value"]:
    """All values that occur; counting small whole numbers is far faster than sorting them."""
    low, high = float(voxels.min()), float(voxels.max())
    slices = [voxels[:, :, number].ravel(order="K") for number in range(voxels.shape[2])]
    if voxels.dtype.kind in "iu" and 0 <= low and high < _COUNTABLE:
        counts = np.sum([np.bincount(part, minlength=_COUNTABLE) for part in slices], axis=0)
        return np.flatnonzero(counts).astype(np.float64)
    return np.unique(np.concatenate([np.unique(part) for part in slices])).astype(np.float64)


def resampled_shapes(volume: Volume, grid: Grid) -> tuple[Shape3, Shape3]:
    """The shape of a volume once resampled, before it is cropped or padded, along stored and along canonical axes.

    Raises:
        InputError: the volume has no usable affine, or would become too large.
    """
    orientation = orientation_of(volume)
    sides = volume.voxels.shape[:3]
    stored = [0, 0, 0]
    canonical = [0, 0, 0]
    for axis, (place, _) in enumerate(orientation):
        side = grid.shape[place]
        if grid.spacing_mm is not None:
            side = max(1, round(sides[axis] * float(spacing_of(volume)[axis]) / grid.spacing_mm[place]))
        stored[axis] = canonical[place] = side
    _check_room(volume, canonical)
    _check_room(volume, [stored[0], stored[1], sides[2]])  # intermediate: two axes done, the third not yet
    return (stored[0], stored[1], stored[2]), (canonical[0], canonical[1], canonical[2])


def _check_room(volume: Volume, sides: Sequence[int]) -> None:
    if math.prod(sides) > _MAX_VOXELS:
        text = "x".join(map(str, sides))
        raise InputError(f"would become {text} voxels by resampling, which is refused", where=str(volume.path))


def _resample(
    voxels: Shaped[np.ndarray, "i j k"],
    volume: Volume,
    grid: Grid,
    prepare: Callable[[np.ndarray], np.ndarray],
) -> Float[np.ndarray, "x y z"]:
    from nibabel.orientations import apply_orientation

    first, second, third = resampled_shapes(volume, grid)[0]
    # Stored slices are (j, i) with i fastest: whole rows of memory, converted one slice at a time.
    slices = np.empty((voxels.shape[2], second, first), np.float32)
    for number in range(voxels.shape[2]):
        image = Image.fromarray(np.ascontiguousarray(prepare(voxels[:, :, number].T)))
        slices[number] = np.asarray(image.resize((first, second), Image.Resampling.BILINEAR))
    if voxels.shape[2] != third:
        flat = Image.fromarray(slices.reshape(voxels.shape[2], -1))
        slices = np.asarray(flat.resize((flat.width, third), Image.Resampling.BILINEAR)).reshape(third, second, first)
    return np.ascontiguousarray(apply_orientation(slices.transpose(2, 1, 0), orientation_of(volume)))
