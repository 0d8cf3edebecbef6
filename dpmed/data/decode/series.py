"""A series of DICOM files, or one file of many frames, as a volume.

Slices are ordered by their position along the normal of their plane; file names do not matter. Voxel size and
orientation come from the headers, converted from DICOM's axes (left, back, head) to RAS+ as in NIfTI. Anything that
would misrepresent the body is refused by name: slices that are missing or duplicated, or from another series, patient,
size or orientation.

Source: DICOM PS3.3 C.7.6.2 (image plane), C.7.6.16 (functional groups of frames).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from dpmed.data.decode.dicom import DicomFile, guarded, open_dicom
from dpmed.data.decode.dicom_values import (
    functional_group,
    is_inverted,
    linear_window,
    rescale_of,
    turned_over,
    voi_of,
)
from dpmed.data.decode.nifti import MAX_BYTES, Volume
from dpmed.data.decode.recognise import is_slice, slices_in
from dpmed.errors import InputError

_MOST_FILES = 10_000
# Positions and the directions of a plane are written with about six digits.
_SAME_DIRECTION = 1e-3
_SAME_PLACE_MM = 1e-3
# Relative to the usual distance between slices: more than the first is a gap, less than the second is rounding.
_GAP, _JITTER = 1.5, 0.05
_OFF_LINE = 0.5  # of a pixel: slices shifted sideways by more do not form a stack
_HALF_TURN = np.diag([-1.0, -1.0, 1.0])  # from left, back, head to right, front, head


@dataclass(frozen=True, kw_only=True, eq=False)
class _Slice:
    """One plane and where it lies."""

    file: DicomFile
    frame: int
    position: Float[np.ndarray, "3"]
    rows_along: Float[np.ndarray, "3"]
    columns_along: Float[np.ndarray, "3"]
    spacing: tuple[float, float]
    rescale: tuple[float, float]

    @property
    def normal(self) -> Float[np.ndarray, "3"]:
        return np.cross(self.rows_along, self.columns_along)

    @property
    def name(self) -> str:
        return self.file.path.name if self.file.frames == 1 else f"frame {self.frame + 1}"


def read_series(source: Path | Sequence[Path]) -> Volume:
    """A volume from the files of one series.

    Args:
        source: a folder whose files are the series, a multi-frame file, or the files themselves.

    Returns:
        Stored values with axes along the columns of a slice, its rows and the stack; `MONOCHROME1` is inverted, but for
        values that are a quantity, such as HU.

    Raises:
        InputError: a file cannot be read, or the files are not one evenly spaced stack of grey slices.
    """
    paths = _files(source)
    where = paths[0] if len(paths) == 1 else paths[0].parent
    return guarded(where, lambda: _read(paths, where))


def _files(source: Path | Sequence[Path]) -> list[Path]:
    if isinstance(source, Path):
        if not source.exists():
            raise InputError("there is no such file or folder", where=str(source))
        alone = [source] if is_slice(source.name) else []
        paths = alone if source.is_file() else slices_in(source)
    else:
        paths = list(source)
    if not paths or len(paths) > _MOST_FILES:
        where = str(source if isinstance(source, Path) else "data")
        raise InputError(f"holds {len(paths)} files, which is not a series", where=where)
    return sorted(paths)


def _read(paths: list[Path], where: Path) -> Volume:
    files = [open_dicom(path) for path in paths]
    _check_alike(files, where)
    slices = [_slice(file, frame) for file in files for frame in range(file.frames)]
    ordered = _in_order(slices, where)
    return _stack(ordered, where)


def _check_alike(files: list[DicomFile], where: Path) -> None:
    first = files[0]
    if len(files) > 1 and any(file.frames > 1 for file in files):
        raise InputError("holds several multi-frame files", where=str(where), remedy=_ALONE)
    for facts, what in ((("SeriesInstanceUID",), "series"), (("PatientID", "IssuerOfPatientID"), "patients")):
        held: dict[tuple[str, ...], list[str]] = {}
        for file in files:
            held.setdefault(tuple(str(file.dataset.get(name, "")) for name in facts), []).append(file.path.name)
        if len(held) > 1:
            examples = ", ".join(names[0] for names in held.values())[:200]
            raise InputError(f"holds {len(held)} {what}, such as the files {examples}", where=str(where), remedy=_ALONE)
    if first.frames == 1 and len(files) == 1:
        raise InputError("is one slice, not a volume", where=str(first.path), remedy=_ALONE)
    for file in files:
        problem = _problem_with(file, first)
        if problem:
            raise InputError(problem, where=str(file.path))
    size = first.rows * first.columns * sum(file.frames for file in files) * 4
    if size > MAX_BYTES:
        raise InputError(f"would take {size:,} bytes; over {MAX_BYTES:,} are refused", where=str(where))


def _problem_with(file: DicomFile, first: DicomFile) -> str:
    if not file.grey:
        return "is in colour; volumes must be greyscale"
    if file.dataset.get("ModalityLUTSequence"):
        return "gives its values by a table, which is read for pictures only"
    if (file.rows, file.columns) != (first.rows, first.columns):
        return f"has {file.columns} x {file.rows} pixels, but {first.path.name} {first.columns} x {first.rows}"
    return ""


_ALONE = "Put each series into a separate folder."


def _slice(file: DicomFile, frame: int) -> _Slice:
    try:
        return _located(file, frame)
    except (KeyError, AttributeError, TypeError, ValueError, IndexError):
        pass  # an error raised here would carry values from the header
    raise InputError(
        "does not say where it is in space: position, orientation or pixel spacing is missing", where=str(file.path)
    )


def _located(file: DicomFile, frame: int) -> _Slice:
    directions = _numbers(functional_group(file, frame, "PlaneOrientationSequence").ImageOrientationPatient, 6)
    position = _numbers(functional_group(file, frame, "PlanePositionSequence").ImagePositionPatient, 3)
    spacing = _numbers(functional_group(file, frame, "PixelMeasuresSequence").PixelSpacing, 2)
    along, down = directions[:3], directions[3:]
    if abs(np.linalg.norm(along) - 1) > 0.01 or abs(np.linalg.norm(down) - 1) > 0.01 or abs(along @ down) > 0.01:  # noqa: PLR2004 unit vectors, as far as they are written
        raise ValueError("no two directions at a right angle")
    if spacing.min() <= 0:
        raise ValueError("no size")
    offsets = file.dataset.get("GridFrameOffsetVector")  # of doses: the distance of each frame from the first
    if offsets is not None and file.frames > 1 and "PerFrameFunctionalGroupsSequence" not in file.dataset:
        position = position + np.cross(along, down) * _numbers(offsets, file.frames)[frame]
    return _Slice(
        file=file,
        frame=frame,
        position=position,
        rows_along=along,
        columns_along=down,
        spacing=(float(spacing[0]), float(spacing[1])),
        rescale=rescale_of(file, frame),
    )


def _numbers(values: Any, count: int) -> Float[np.ndarray, " number"]:
    numbers = np.asarray([float(value) for value in values], np.float64)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise ValueError("not so many finite numbers")
    return numbers


def _in_order(slices: list[_Slice], where: Path) -> list[_Slice]:
    """The slices from one end of the stack to the other, after checking that they form one."""
    first = slices[0]
    for other in slices:
        turned = max(
            np.abs(other.rows_along - first.rows_along).max(), np.abs(other.columns_along - first.columns_along).max()
        )
        if turned > _SAME_DIRECTION or not np.allclose(other.spacing, first.spacing, rtol=_SAME_DIRECTION):
            raise InputError(
                f"{other.name} has another orientation or pixel spacing than {first.name}",
                where=str(where),
                remedy=_ALONE,
            )
    places = np.array([one.position @ first.normal for one in slices])
    order = np.argsort(places, kind="stable")
    ordered = [slices[number] for number in order]
    steps = np.diff(places[order])
    usual = float(np.median(steps))
    pairs = [f"{one.name} and {other.name}" for one, other in pairwise(ordered)]
    for pair, step in zip(pairs, steps, strict=True):
        if step < _SAME_PLACE_MM:
            raise InputError(f"{pair} are at the same position", where=str(where), remedy="Remove one of them.")
    for pair, step in zip(pairs, steps, strict=True):
        apart = f"{step:.2f} mm apart, the other slices {usual:.2f}"
        if step > _GAP * usual:
            raise InputError(f"slices are missing between {pair}, which are {apart}", where=str(where))
        if abs(step - usual) > _JITTER * usual:
            raise InputError(f"{pair} are {apart}", where=str(where))
    ends = ordered[0].position, ordered[-1].position
    line = np.linspace(*ends, len(ordered))
    aside = np.linalg.norm(np.stack([one.position for one in ordered]) - line, axis=1)
    if aside.max() > _OFF_LINE * min(first.spacing) + _JITTER * usual:
        raise InputError(f"{ordered[int(aside.argmax())].name} lies beside the line of the others", where=str(where))
    return ordered


def _stack(slices: list[_Slice], where: Path) -> Volume:
    first, last = slices[0], slices[-1]
    plain = len({one.rescale for one in slices}) == 1
    exact = plain and not any(one.file.real or is_inverted(one.file, one.frame) for one in slices)
    voxels: Shaped[np.ndarray, "slice row column"] | None = None
    for number, one in enumerate(slices):
        stored = one.file.stored(one.frame)
        if exact:
            values: np.ndarray = stored
        else:
            values = turned_over(one.file, stored, one.frame)
            if not plain:
                values = values * np.float32(one.rescale[0]) + np.float32(one.rescale[1])
        if voxels is None:
            voxels = np.empty((len(slices), *values.shape), values.dtype.newbyteorder("="))
        if not np.can_cast(values.dtype.newbyteorder("="), voxels.dtype):
            raise InputError(f"holds values of another type than {first.name}", where=str(one.file.path))
        voxels[number] = values
    assert voxels is not None  # noqa: S101 for the type checker: there are at least two slices
    affine = np.eye(4)
    affine[:3, 0] = first.rows_along * first.spacing[1]
    affine[:3, 1] = first.columns_along * first.spacing[0]
    affine[:3, 2] = (last.position - first.position) / (len(slices) - 1)
    affine[:3, 3] = first.position
    affine[:3] = _HALF_TURN @ affine[:3]
    slope, intercept = first.rescale if plain else (1.0, 0.0)
    return Volume(
        path=where,
        voxels=voxels.transpose(2, 1, 0),
        affine=affine,
        slope=slope,
        intercept=intercept,
        display=_display(slices[len(slices) // 2]),
    )


def _display(middle: _Slice) -> tuple[float, float] | None:
    """The VOI window of the middle slice, used for all slices, although theirs may differ."""
    try:
        centre, width, function = voi_of(middle.file, middle.frame)
    except InputError:
        return None
    low, high = linear_window(centre, width, function)
    if not is_inverted(middle.file, middle.frame):
        return low, high
    # The header's window is that of the values before they were turned over.
    slope, intercept = middle.rescale
    ends = slope * sum(middle.file.stored_range) + 2 * intercept
    return ends - high, ends - low
