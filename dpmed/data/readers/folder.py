"""Your own pictures: one folder per class, optionally below `train`, `val` and `test`.

A class folder may hold PNG, JPEG, TIFF and DICOM files (pictures), or NIfTI and DICOM files (volumes), in folders of
any depth; DICOM files need no extension. For volumes, the DICOM files in one folder are the slices of one series; those
directly in the class folder are multi-frame volumes. A table `metadata.csv` beside the class folders may say more about
each file.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dpmed.config.data import FolderData
from dpmed.config.privacy import Unit
from dpmed.data.base import ImageNames, Info, Sample, Split
from dpmed.data.decode.files import decode_file
from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.data.image_files import check_size, depth_notes, is_volume, preprocessing_of, problem_with
from dpmed.data.listing.found import find_files, group_series
from dpmed.data.listing.header_patients import HEADER, patients_by_header
from dpmed.data.listing.problems import Problems
from dpmed.data.listing.sources import Root, read_table
from dpmed.data.normalise import CLASSES_READ, normalisation, unnamed_patients
from dpmed.data.phantom.marker import MARKER
from dpmed.data.split import PART_NAMES
from dpmed.data.storage.stored import FileDataset, Listing, Sources, files_below
from dpmed.errors import InputError
from dpmed.progress import Progress

METADATA = "metadata.csv"
_FACTS = ("patient", "sex", "age", "site")
_SHOWN_NAMES = 3
# Folders of images and masks, which are not classes.
_PAIRS = ({"images", "labels"}, {"images", "masks"}, {"imagestr", "labelstr"})


@dataclass(frozen=True, kw_only=True)
class _File:
    """One sample: its files, its place below the root, below its class, its class, and part (empty: no split given)."""

    paths: tuple[Path, ...]
    place: str
    name: str
    class_name: str
    part: str


def read_folder(config: FolderData, *, progress: Progress) -> FileDataset:
    """All pictures below the root.

    Args:
        config: where they are and how they are preprocessed.
        progress: reports the files that are left out.

    Raises:
        InputError: there are no classes, files of the wrong kind, names that `group_pattern` does not match, or
            `metadata.csv` does not fit the files.
    """
    root = Root(config.root)
    files = _find_files(root, config.size, progress)
    names = tuple(sorted({file.class_name for file in files}))
    _check_classes(names, config)
    labels = np.array([names.index(file.class_name) for file in files], np.int32)
    parts = np.array([file.part for file in files])
    split = None
    if parts.any():
        split = Split(**{part: np.flatnonzero(parts == part) for part in ("train", "validation", "test")})
    facts = _read_facts(root, files)
    groups, has_patients = _groups(files, config, facts.get("patient"))
    _check_parts(groups, parts, shown=config.patient is None)
    preprocessing = preprocessing_of(config, files=1, first=files[0].paths[0])

    def decode(sources: Sources, number: int) -> Sample:
        return Sample(input=decode_file(sources, preprocessing).values, target=np.asarray(labels[number]))

    return FileDataset(
        _info(config, preprocessing, names, unit=config.unit if has_patients else "image"),
        Listing(labels=labels, groups=groups, official_split=split, columns=facts, images=_images(root, files)),
        root=root.path,
        sources=[file.paths for file in files],
        decode=decode,
        preprocessing={"reader": "folder", **preprocessing.to_json()},
    )


def _check_classes(names: tuple[str, ...], config: FolderData) -> None:
    where = f"data.root = {str(config.root)!r}"
    if {name.lower() for name in names} in _PAIRS:
        raise InputError(
            f"holds the folders {' and '.join(names)}: images and their masks, which would be read as two classes",
            where=where,
            remedy='Use name = "nnunet" for that layout, otherwise name = "table" with the columns image and mask.',
        )
    if len(names) < 2:  # noqa: PLR2004 a single class leaves nothing to learn
        raise InputError(
            f"has {len(names)} class folders with pictures; two are needed",
            where=where,
            remedy="Put the pictures of each class into a separate folder; size has three sides for volumes.",
        )


def _info(config: FolderData, preprocessing: Preprocessing, names: tuple[str, ...], *, unit: Unit) -> Info:
    default_mean, default_std = preprocessing.constants
    channels = preprocessing.channels
    mean, std, outside = normalisation(config, mean=default_mean, std=default_std, channels=channels, note=None)
    if unit == "image":
        outside = (*outside, unnamed_patients("Without data.group_pattern or metadata.csv the files name"))
    return Info(
        name="folder",
        task="classification",
        input_shape=preprocessing.input_shape,
        class_names=names,
        scale=preprocessing.scale,
        mean=mean,
        std=std,
        unit=unit,
        outside_accounting=(*outside, CLASSES_READ, *depth_notes(config)),
        patients_unknown=unit == "image",
        value_range=preprocessing.value_range,
        preprocessing=preprocessing,
    )


def _find_files(root: Root, size: Sequence[int], progress: Progress) -> list[_File]:
    found = find_files(root, ignored=(METADATA, MARKER))
    _tell_left_out(found.left_out, found.hidden, progress)
    check_size(size, found.files)
    for name, kind in found.files.items():
        problem = problem_with(kind, size)
        if problem is not None:
            path = root.locate(name, source=str(root.path))
            raise InputError(problem, where=str(path), remedy="Give data.size three sides for volumes, otherwise two.")
    prescribed = bool(found.files) and all(name.split("/")[0] in PART_NAMES for name in found.files)
    samples = {name: [name] for name in found.files}
    if is_volume(size):
        samples = group_series(found.files, own_depth=2 if prescribed else 1)
    files = []
    for place, members in samples.items():
        paths = tuple(root.locate(member, source=str(root.path)) for member in members)
        parts = PurePosixPath(place).parts
        part, parts = (PART_NAMES[parts[0]], parts[1:]) if prescribed else ("", parts)
        if len(parts) < 2:  # noqa: PLR2004 class folder and file
            raise InputError("is not in a class folder", where=str(paths[0]))
        files.append(_File(paths=paths, place=place, name="/".join(parts[1:]), class_name=parts[0], part=part))
    return files


def _tell_left_out(others: Sequence[str], hidden: Sequence[str], progress: Progress) -> None:
    kinds = {
        "hidden": hidden,
        "without an extension": [name for name in others if "." not in PurePosixPath(name).name],
        "of other kinds": [name for name in others if "." in PurePosixPath(name).name],
    }
    told = [
        f"{len(names)} {kind} ({', '.join(names[:_SHOWN_NAMES])}{', …' if len(names) > _SHOWN_NAMES else ''})"
        for kind, names in kinds.items()
        if names
    ]
    if told:
        progress.say(f"Files left out: {'; '.join(told)}.")


def _read_facts(root: Root, files: Sequence[_File]) -> dict[str, list[str]]:
    """The content of `metadata.csv` for every file, by column; empty if there is no such table."""
    path = root.locate(METADATA, source=METADATA)
    if not path.exists():
        return {}
    table = read_table(path, ["file"])
    rows = {name: row for row, name in enumerate(table.column("file"))}
    known = {name: table.column(name) for name in _FACTS if name in table.names}
    problems, places = Problems(table.lines), {file.place for file in files}
    for row, name in enumerate(table.column("file")):
        if name not in places:
            problems.add(row, f"file = {name!r} is not one of the files that are read")
        elif rows[name] != row:
            problems.add(row, f"file = {name!r} occurs again on line {problems.line_of(rows[name])}")
        if "patient" in known and not known["patient"][row]:
            problems.add(row, "patient is empty")
    problems.settle(str(path))
    missing = [file.place for file in files if file.place not in rows]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"has no row for {missing[0]!r}{more}", where=str(path), remedy="List every file.")
    return {name: [column[rows[file.place]] for file in files] for name, column in known.items()}


def _groups(files: Sequence[_File], config: FolderData, patients: list[str] | None) -> tuple[list[str], bool]:
    """The unit of every file, and whether it is more than the file itself."""
    pattern = config.group_pattern
    if patients is not None and (pattern is not None or config.patient is not None):
        key = "patient" if pattern is None else "group_pattern"
        raise InputError(f"{METADATA} already names the patients", where=f"data.{key}", remedy="Remove one of the two.")
    if patients is not None:
        return patients, True
    if config.patient == HEADER:
        found = patients_by_header([file.paths[:1] for file in files], others="data.group_pattern or metadata.csv")
        return found, True
    if pattern is None:
        # Every file is its own unit, named by its path.
        return [f"{file.class_name}/{file.name}" for file in files], False
    return groups_by_pattern([file.name for file in files], pattern), True


def groups_by_pattern(names: Sequence[str], pattern: str) -> list[str]:
    """The match of a regular expression's only group in each name.

    Raises:
        InputError: it is not such an expression, or does not match a name.
    """
    where = f"data.group_pattern = {pattern!r}"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"is not a regular expression ({error})", where=where) from error
    if compiled.groups != 1:
        raise InputError(f"has {compiled.groups} groups in brackets; one is needed", where=where)
    groups = []
    for name in names:
        match = compiled.search(name)
        if match is None or not match.group(1):
            raise InputError(
                f"does not match {name!r}",
                where=where,
                remedy="It must match every name, which for a file is the path below its class.",
            )
        groups.append(match.group(1))
    return groups


def _images(root: Root, files: Sequence[_File]) -> list[ImageNames] | None:
    """Paths with and without the folder of the part; of a series its folder and each file. None for plain files."""
    if not any(file.part or len(file.paths) > 1 for file in files):
        return None
    below = files_below(root.path, [file.paths for file in files])
    return [(file.place, f"{file.class_name}/{file.name}", *names) for file, names in zip(files, below, strict=True)]


def _check_parts(groups: list[str], parts: np.ndarray, *, shown: bool) -> None:
    part_of: dict[str, str] = {}
    for group, part in zip(groups, parts.tolist(), strict=True):
        if part_of.setdefault(group, part) != part:
            unit = f"the unit {group!r}" if shown else "a patient"
            raise InputError(
                f"{unit} has pictures in {part_of[group]} and in {part}, so the test would measure memorisation",
                where="data.group_pattern" if shown else "data.patient",
                remedy="Move all its pictures into one part.",
            )
