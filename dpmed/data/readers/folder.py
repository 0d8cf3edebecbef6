"""Your own pictures: a folder per class, optionally below `train`, `val` and `test`.

A class folder may hold PNG, JPEG, TIFF and DICOM files (pictures) or NIfTI files (volumes), in folders of any depth.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dpmed.config.data import FolderData
from dpmed.data.base import Info, Sample, Split
from dpmed.data.decode.dicom import DICOM_ENDINGS, read_dicom
from dpmed.data.decode.nifti import NIFTI_ENDINGS, read_nifti
from dpmed.data.decode.pictures import PICTURE_ENDINGS, decode_picture, resize_picture, window_to_bytes
from dpmed.data.decode.volume import Grid, read_intensities
from dpmed.data.normalise import normalisation, unnamed_patients
from dpmed.data.sources import Root
from dpmed.data.stored import FileDataset, Listing, Sources
from dpmed.errors import InputError

_PARTS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_HU_WINDOW, _DEEP_WINDOW = (-1024.0, 3071.0), (0.0, 65535.0)


@dataclass(frozen=True, kw_only=True)
class _File:
    """One picture: its path, class, and part (empty without prescribed split)."""

    path: Path
    name: str
    class_name: str
    part: str


def read_folder(config: FolderData) -> FileDataset:
    """All pictures below the root.

    Raises:
        InputError: there are no classes, files of the wrong kind, or names that `group_pattern` does not fit.
    """
    root = Root(config.root)
    files = _find_files(root, volumes=len(config.size) == 3)  # noqa: PLR2004 sides of a volume
    names = tuple(sorted({file.class_name for file in files}))
    if len(names) < 2:  # noqa: PLR2004 one class cannot be told from anything
        raise InputError(
            f"has {len(names)} class folders with pictures; two are needed",
            where=f"[data] root = {str(config.root)!r}",
            remedy="Put the pictures of each class into a folder of its own; size has three sides for volumes.",
        )
    labels = np.array([names.index(file.class_name) for file in files], np.int32)
    parts = np.array([file.part for file in files])
    split = None
    if parts.any():
        split = Split(**{part: np.flatnonzero(parts == part) for part in ("train", "validation", "test")})
    groups = _groups(files, config.group_pattern)
    _check_parts(groups, parts)
    info = _info(config, names)

    def decode(sources: Sources, number: int) -> Sample:
        return Sample(input=_decode(sources[0], config), target=np.asarray(labels[number]))

    return FileDataset(
        info,
        Listing(labels=labels, groups=groups, official_split=split),
        root=root.path,
        sources=[(file.path,) for file in files],
        decode=decode,
        preprocessing={
            "reader": "folder",
            "size": list(config.size),
            "channels": info.input_shape[-1],
            "window": config.window and list(config.window),
        },
    )


def _info(config: FolderData, names: tuple[str, ...]) -> Info:
    volumes = len(config.size) == 3  # noqa: PLR2004 sides of a volume
    channels = 1 if volumes else config.channels
    low, high = (config.window or _HU_WINDOW) if volumes else (0.0, 1.0)
    centre, spread = (low + high) / 2, (high - low) / 4
    mean, std, outside = normalisation(
        config, mean=(centre,) * channels, std=(spread,) * channels, channels=channels, note=None
    )
    if config.group_pattern is None:
        outside = (*outside, unnamed_patients("Without data.group_pattern the files name"))
    outside = (*outside, "The names and the number of the classes were read from the folders of the data set.")
    return Info(
        name="folder",
        task="classification",
        input_shape=(*config.size, channels),
        class_names=names,
        scale=1.0 if volumes else 255.0,
        mean=mean,
        std=std,
        unit="image" if config.group_pattern is None else config.unit,
        outside_accounting=outside,
    )


def _decode(path: Path, config: FolderData) -> np.ndarray:
    if len(config.size) == 3:  # noqa: PLR2004 sides of a volume
        window = config.window or _HU_WINDOW
        values = read_intensities(read_nifti(path), Grid(shape=config.size), window=window)
        if values.shape[-1] != 1:
            raise InputError(f"has {values.shape[-1]} channels; volumes must have one", where=str(path))
        return values.astype(np.float32 if max(map(abs, window)) > 4096 else np.float16)  # noqa: PLR2004 exact to 2 HU
    if path.name.lower().endswith(DICOM_ENDINGS):
        grey = window_to_bytes(read_dicom(path), config.window or _HU_WINDOW)[..., None]
        return np.repeat(resize_picture(grey, size=config.size), config.channels, axis=-1)
    return decode_picture(path, size=config.size, channels=config.channels, window=config.window or _DEEP_WINDOW)


def _find_files(root: Root, *, volumes: bool) -> list[_File]:
    endings = NIFTI_ENDINGS if volumes else PICTURE_ENDINGS + DICOM_ENDINGS
    others = PICTURE_ENDINGS + DICOM_ENDINGS if volumes else NIFTI_ENDINGS
    names = [name for name in root.walk() if name.lower().endswith(endings + others)]
    prescribed = bool(names) and all(name.split("/")[0] in _PARTS for name in names)
    files = []
    for name in names:
        path = root.locate(name, source=str(root.path))
        if name.lower().endswith(others):
            kind = "a picture among volumes" if volumes else "a volume, but size has two sides"
            raise InputError(f"is {kind}", where=str(path), remedy="Give data.size three sides for volumes, else two.")
        parts = PurePosixPath(name).parts
        part, parts = (_PARTS[parts[0]], parts[1:]) if prescribed else ("", parts)
        if len(parts) < 2:  # noqa: PLR2004 class folder and file
            raise InputError("lies in no class folder", where=str(path))
        files.append(_File(path=path, name="/".join(parts[1:]), class_name=parts[0], part=part))
    return files


def _groups(files: list[_File], pattern: str | None) -> list[str]:
    if pattern is None:
        # Every file is a unit by itself, and its path is its name.
        return [f"{file.class_name}/{file.name}" for file in files]
    where = f"[data] group_pattern = {pattern!r}"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"is no regular expression ({error})", where=where) from error
    if compiled.groups != 1:
        raise InputError(f"has {compiled.groups} groups in brackets; one is needed", where=where)
    groups = []
    for file in files:
        match = compiled.search(file.name)
        if match is None or not match.group(1):
            raise InputError(
                f"does not fit {file.name!r}", where=where, remedy="It must fit every file below its class."
            )
        groups.append(match.group(1))
    return groups


def _check_parts(groups: list[str], parts: np.ndarray) -> None:
    part_of: dict[str, str] = {}
    for group, part in zip(groups, parts.tolist(), strict=True):
        if part_of.setdefault(group, part) != part:
            raise InputError(
                f"the unit {group!r} has pictures in {part_of[group]} and in {part}, so the test would measure memory",
                where="[data] group_pattern",
                remedy="Move all its pictures into one part.",
            )
