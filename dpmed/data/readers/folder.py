"""Your own pictures: a folder per class, optionally below `train`, `val` and `test`.

A class folder may hold PNG, JPEG, TIFF and DICOM files (pictures), or NIfTI and DICOM files (volumes), in folders of
any depth; DICOM files need no ending. Of volumes, the DICOM files of one folder are the slices of one series; those
right in the class folder are volumes of many frames.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dpmed.config.data import FolderData
from dpmed.data.base import Info, Sample, Split
from dpmed.data.decode.dicom import read_patient_id
from dpmed.data.decode.files import decode_file, depth_for
from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.data.decode.recognise import recognise
from dpmed.data.normalise import normalisation, unnamed_patients
from dpmed.data.readers.found import find_files, group_series
from dpmed.data.sources import Root
from dpmed.data.stored import FileDataset, Listing, Sources
from dpmed.errors import InputError

_PARTS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class _File:
    """One picture or volume: its files, its name below its class, class, and part (empty without prescribed split)."""

    paths: tuple[Path, ...]
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
    groups = _patients(files) if config.patient == "header" else _groups(files, config.group_pattern)
    _check_parts(groups, parts, shown=config.patient is None)
    preprocessing = _preprocessing(config, files[0].paths)
    info = _info(config, names, preprocessing)

    def decode(sources: Sources, number: int) -> Sample:
        return Sample(input=decode_file(sources, preprocessing).values, target=np.asarray(labels[number]))

    return FileDataset(
        info,
        Listing(labels=labels, groups=groups, official_split=split),
        root=root.path,
        sources=[file.paths for file in files],
        decode=decode,
        preprocessing={"reader": "folder", **preprocessing.to_json()},
    )


def _preprocessing(config: FolderData, first: tuple[Path, ...]) -> Preprocessing:
    if len(config.size) == 3:  # noqa: PLR2004 sides of a volume
        return Preprocessing(size=config.size, window=config.window)
    return Preprocessing(
        size=config.size,
        channels=config.channels,
        window=config.window,
        depth=config.depth or depth_for(first[0]),
        narrow=config.depth is not None,
    )


def _info(config: FolderData, names: tuple[str, ...], preprocessing: Preprocessing) -> Info:
    # Middle and quarter of the range, not computed from the pictures.
    low, high = (value / preprocessing.scale for value in preprocessing.value_range)
    channels = preprocessing.channels
    mean, std, outside = normalisation(
        config, mean=((low + high) / 2,) * channels, std=((high - low) / 4,) * channels, channels=channels, note=None
    )
    named = config.group_pattern is not None or config.patient is not None
    if not named:
        outside = (*outside, unnamed_patients("Without data.group_pattern the files name"))
    outside = (*outside, "The names and the number of the classes were read from the folders of the data set.")
    if not preprocessing.volumes and config.depth is None:
        outside = (*outside, "The depth of the pictures, 8 or 16 bits, is that of the first file; data.depth fixes it.")
    return Info(
        name="folder",
        task="classification",
        input_shape=(*config.size, channels),
        class_names=names,
        scale=preprocessing.scale,
        mean=mean,
        std=std,
        unit=config.unit if named else "image",
        outside_accounting=outside,
        value_range=preprocessing.value_range,
        preprocessing=preprocessing,
    )


def _find_files(root: Root, *, volumes: bool) -> list[_File]:
    found = find_files(root).files
    other = "picture" if volumes else "nifti"
    for name, kind in found.items():
        if kind == other:
            problem = "is a picture among volumes" if volumes else "is a volume, but size has two sides"
            path = root.locate(name, source=str(root.path))
            raise InputError(problem, where=str(path), remedy="Give data.size three sides for volumes, else two.")
    prescribed = bool(found) and all(name.split("/")[0] in _PARTS for name in found)
    samples = group_series(found, own_depth=2 if prescribed else 1) if volumes else {name: [name] for name in found}
    files = []
    for name, members in samples.items():
        paths = tuple(root.locate(member, source=str(root.path)) for member in members)
        parts = PurePosixPath(name).parts
        part, parts = (_PARTS[parts[0]], parts[1:]) if prescribed else ("", parts)
        if len(parts) < 2:  # noqa: PLR2004 class folder and file
            raise InputError("lies in no class folder", where=str(paths[0]))
        files.append(_File(paths=paths, name="/".join(parts[1:]), class_name=parts[0], part=part))
    return files


def _patients(files: list[_File]) -> list[str]:
    """The patient of each file by its header, as a digest: the numbers themselves go no further."""
    groups = []
    for file in files:
        if recognise(file.paths[0]) != "dicom":
            remedy = "Only DICOM files do; name patients by data.group_pattern."
            raise InputError("has no patient's id in its header", where=str(file.paths[0]), remedy=remedy)
        groups.append(hashlib.sha256(read_patient_id(file.paths[0]).encode()).hexdigest()[:32])
    if len(files) > 1 and len(set(groups)) == 1:
        raise InputError(
            "is 'header', but all files name the same patient, as files do whose names were taken out",
            where="[data] patient",
            remedy="Name patients by data.group_pattern.",
        )
    return groups


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


def _check_parts(groups: list[str], parts: np.ndarray, *, shown: bool) -> None:
    part_of: dict[str, str] = {}
    for group, part in zip(groups, parts.tolist(), strict=True):
        if part_of.setdefault(group, part) != part:
            unit = f"the unit {group!r}" if shown else "a patient"
            raise InputError(
                f"{unit} has pictures in {part_of[group]} and in {part}, so the test would measure memory",
                where="[data] group_pattern" if shown else "[data] patient",
                remedy="Move all its pictures into one part.",
            )
