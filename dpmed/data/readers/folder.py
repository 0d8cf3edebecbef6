"""Your own pictures: a folder per class, optionally below `train`, `val` and `test`.

A class folder may hold PNG, JPEG, TIFF and DICOM files (pictures) or NIfTI files (volumes), in folders of any depth. A
table `metadata.csv` beside the class folders may say more of each file.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from dpmed.config.data import FolderData
from dpmed.data.base import Info, Sample, Split, UnitName
from dpmed.data.image_files import FILE_ENDINGS, ImageReader
from dpmed.data.normalise import CLASSES_READ, normalisation, unnamed_patients
from dpmed.data.problems import Problems
from dpmed.data.sources import Root, read_table
from dpmed.data.split import PART_NAMES
from dpmed.data.stored import FileDataset, Listing, Sources
from dpmed.errors import InputError
from dpmed.progress import Progress

METADATA = "metadata.csv"
_FACTS = ("patient", "sex", "age", "site")
_SHOWN_NAMES = 3
# Folders of images and masks, which are no classes.
_PAIRS = ({"images", "labels"}, {"images", "masks"}, {"imagestr", "labelstr"})


@dataclass(frozen=True, kw_only=True)
class _File:
    """One picture: its path, its place below the root, below its class, its class, and part (empty: no split given)."""

    path: Path
    place: str
    name: str
    class_name: str
    part: str


def read_folder(config: FolderData, *, progress: Progress) -> FileDataset:
    """All pictures below the root.

    Args:
        config: where they are and what they become.
        progress: told of the files that are left out.

    Raises:
        InputError: there are no classes, files of the wrong kind, names that `group_pattern` does not fit, or
            `metadata.csv` does not fit the files.
    """
    root = Root(config.root)
    reader = ImageReader(size=config.size, colours=config.channels, files=1, window=config.window)
    files = _find_files(root, reader, progress)
    names = tuple(sorted({file.class_name for file in files}))
    _check_classes(names, config)
    labels = np.array([names.index(file.class_name) for file in files], np.int32)
    parts = np.array([file.part for file in files])
    split = None
    if parts.any():
        split = Split(**{part: np.flatnonzero(parts == part) for part in ("train", "validation", "test")})
    facts = _read_facts(root, files)
    groups, has_patients = _groups(files, config.group_pattern, facts.get("patient"))
    _check_parts(groups, parts)

    def decode(sources: Sources, number: int) -> Sample:
        return Sample(input=reader.read(sources), target=np.asarray(labels[number]))

    return FileDataset(
        _info(config, reader, names, unit=config.unit if has_patients else "image"),
        Listing(labels=labels, groups=groups, official_split=split, columns=facts),
        root=root.path,
        sources=[(file.path,) for file in files],
        decode=decode,
        preprocessing={"reader": "folder", **reader.preprocessing},
    )


def _check_classes(names: tuple[str, ...], config: FolderData) -> None:
    where = f"[data] root = {str(config.root)!r}"
    if {name.lower() for name in names} in _PAIRS:
        raise InputError(
            f"holds the folders {' and '.join(names)}: images and their masks, which would be read as two classes",
            where=where,
            remedy='Use name = "nnunet" for its layout, else name = "table" with the columns image and mask.',
        )
    if len(names) < 2:  # noqa: PLR2004 one class cannot be told from anything
        raise InputError(
            f"has {len(names)} class folders with pictures; two are needed",
            where=where,
            remedy="Put the pictures of each class into a folder of its own; size has three sides for volumes.",
        )


def _info(config: FolderData, reader: ImageReader, names: tuple[str, ...], *, unit: UnitName) -> Info:
    default_mean, default_std = reader.constants
    mean, std, outside = normalisation(config, mean=default_mean, std=default_std, channels=reader.channels, note=None)
    if unit == "image":
        outside = (*outside, unnamed_patients("Without data.group_pattern or metadata.csv the files name"))
    return Info(
        name="folder",
        task="classification",
        input_shape=reader.input_shape,
        class_names=names,
        scale=reader.scale,
        mean=mean,
        std=std,
        unit=unit,
        outside_accounting=(*outside, CLASSES_READ),
        patients_unknown=unit == "image",
    )


def _find_files(root: Root, reader: ImageReader, progress: Progress) -> list[_File]:
    hidden: list[str] = []
    everything = [name for name in root.walk(hidden=hidden) if name != METADATA]
    names = [name for name in everything if name.lower().endswith(FILE_ENDINGS)]
    _tell_left_out(everything, hidden, progress)
    prescribed = bool(names) and all(name.split("/")[0] in PART_NAMES for name in names)
    files = []
    for name in names:
        path = root.locate(name, source=str(root.path))
        problem = reader.problem_with(name)
        if problem is not None:
            raise InputError(problem, where=str(path), remedy="Give data.size three sides for volumes, else two.")
        parts = PurePosixPath(name).parts
        part, parts = (PART_NAMES[parts[0]], parts[1:]) if prescribed else ("", parts)
        if len(parts) < 2:  # noqa: PLR2004 class folder and file
            raise InputError("lies in no class folder", where=str(path))
        files.append(_File(path=path, place=name, name="/".join(parts[1:]), class_name=parts[0], part=part))
    return files


def _tell_left_out(everything: Sequence[str], hidden: Sequence[str], progress: Progress) -> None:
    others = [name for name in everything if not name.lower().endswith(FILE_ENDINGS)]
    kinds = {
        "hidden": hidden,
        "without an ending": [name for name in others if "." not in PurePosixPath(name).name],
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
    """What `metadata.csv` says of every file, by column; nothing where there is no such table."""
    path = root.locate(METADATA, source=METADATA)
    if not path.exists():
        return {}
    table = read_table(path, ["file"])
    rows = {name: row for row, name in enumerate(table.column("file"))}
    known = {name: table.column(name) for name in _FACTS if name in table.names}
    problems, places = Problems(table.lines), {file.place for file in files}
    for row, name in enumerate(table.column("file")):
        if name not in places:
            problems.add(row, f"file = {name!r} is none of the files that are read")
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


def _groups(files: Sequence[_File], pattern: str | None, patients: list[str] | None) -> tuple[list[str], bool]:
    """The unit of every file, and whether it is more than the file itself."""
    if patients is not None and pattern is not None:
        raise InputError(
            f"{METADATA} tells the patients already", where="[data] group_pattern", remedy="Leave one of the two out."
        )
    if patients is not None:
        return patients, True
    if pattern is None:
        # Every file is a unit by itself, and its path is its name.
        return [f"{file.class_name}/{file.name}" for file in files], False
    return groups_by_pattern([file.name for file in files], pattern), True


def groups_by_pattern(names: Sequence[str], pattern: str) -> list[str]:
    """What the one group of a regular expression finds in each name.

    Raises:
        InputError: it is no such expression, or does not fit a name.
    """
    where = f"[data] group_pattern = {pattern!r}"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"is no regular expression ({error})", where=where) from error
    if compiled.groups != 1:
        raise InputError(f"has {compiled.groups} groups in brackets; one is needed", where=where)
    groups = []
    for name in names:
        match = compiled.search(name)
        if match is None or not match.group(1):
            raise InputError(
                f"does not fit {name!r}", where=where, remedy="It must fit every name, for a file that below its class."
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
