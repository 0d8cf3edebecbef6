"""Your own files listed in a table: one row per sample, with its files and what is to be learnt.

Everything in the table is checked before any file is opened, and all problems are reported at once, by line.
"""

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int8, Integer

from dpmed.config.data import TableData, names_in
from dpmed.data.base import Info, Sample, Split, TaskName
from dpmed.data.decode.files import decode_sample, decode_volumes, grid_of, open_volume
from dpmed.data.decode.masks import read_mask
from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.data.decode.recognise import kind_of_name
from dpmed.data.decode.volume import check_pair, read_labels
from dpmed.data.image_files import check_size, depth_notes, is_volume, preprocessing_of, problem_with
from dpmed.data.listing.header_patients import HEADER, patients_by_header
from dpmed.data.listing.problems import Problems
from dpmed.data.listing.sources import Root, TextTable, read_table
from dpmed.data.normalise import CLASSES_READ, TARGET_CONSTANTS, normalisation, unnamed_patients
from dpmed.data.split import PART_NAMES
from dpmed.data.storage.stored import FileDataset, Listing, Sources, files_below
from dpmed.errors import InputError

_LABELS = {"": -1, "-1": -1, "-1.0": -1, "0": 0, "0.0": 0, "1": 1, "1.0": 1}
_UNKNOWN = ("-1", "-1.0")
_BAD_LABEL = -2
_MAX_CLASSES = 1000
_MASK_NAMES = ("background", "foreground")
_LARGEST_NUMBER = 1e18  # its square fits into float32


@dataclass(frozen=True, kw_only=True)
class _Learnt:
    """What is to be learnt: the task, the names of its outputs, and the targets if they are in the table."""

    task: TaskName
    names: tuple[str, ...]
    labels: Int[np.ndarray, " sample"] | None = None
    targets: Int8[np.ndarray, "sample label"] | Float[np.ndarray, "sample target"] | None = None


def read_table_data(config: TableData) -> FileDataset:
    """The samples that the table lists.

    Raises:
        InputError: the table cannot be read, lacks a column, or has an invalid row.
    """
    root = Root(config.root)
    images = names_in(config.image)
    files = images if config.mask is None else (*images, config.mask)
    wanted = [*files, *_optional(config.labels), *_optional(config.targets), *config.columns]
    wanted += [name for name in (_patient_column(config), config.split) if name is not None]
    table = read_table(root.locate(config.table, source="data.table"), list(dict.fromkeys(wanted)))
    check_size(config.size, {name: kind_of_name(name) for column in images for name in table.column(column) if name})
    problems = Problems(table.lines)
    sources = _find_sources(root, table, files, problems=problems, size=config.size, masks=config.mask is not None)
    learnt = _learnt(config, table, problems)
    groups = _groups(config, table, sources, root, problems)
    shows = config.patient != HEADER
    split = None if config.split is None else _split(table.column(config.split), groups, problems, shows=shows)
    problems.settle(str(table.path))
    if split is not None and not len(split.train):
        raise InputError("no row is in the training part", where="data.split")
    preprocessing = preprocessing_of(config, files=len(images), first=sources[0][0])
    return FileDataset(
        _info(config, preprocessing, learnt),
        Listing(
            labels=learnt.labels,
            groups=groups,
            official_split=split,
            columns={name: table.column(name) for name in config.columns},
            targets=learnt.targets,
            images=files_below(root.path, [one[: len(images)] for one in sources]) if len(files) > 1 else None,
        ),
        root=root.path,
        sources=sources,
        decode=_Decoder(preprocessing=preprocessing, learnt=learnt, table=str(table.path), lines=table.lines),
        preprocessing={
            "reader": "table",
            "classes": len(learnt.names) if learnt.task == "segmentation" else None,
            **preprocessing.to_json(),
        },
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Decoder:
    """Decodes the files of a sample; problems with them are reported with the line that names them."""

    preprocessing: Preprocessing
    learnt: _Learnt
    table: str
    lines: Integer[np.ndarray, " row"]

    def __call__(self, files: Sources, number: int) -> Sample:
        try:
            return self._decoded(files, number)
        except InputError as error:
            place = f"{self.table} line {self.lines[number]}"
            error.where = f"{place}: {error.where}" if error.where else place
            raise

    def _decoded(self, files: Sources, number: int) -> Sample:
        learnt = self.learnt
        if learnt.task == "segmentation":
            return self._segmentation(files[:-1], files[-1])
        known = learnt.labels if learnt.targets is None else learnt.targets
        assert known is not None  # noqa: S101 only masks are in files
        return Sample(input=decode_sample(files, self.preprocessing).values, target=np.asarray(known[number]))

    def _segmentation(self, images: Sources, mask: Any) -> Sample:
        wanted, classes = self.preprocessing, len(self.learnt.names)
        if not wanted.volumes:
            size = (wanted.size[0], wanted.size[1])
            decoded = decode_sample(images, wanted)
            target = read_mask(mask, size=size, classes=classes, image=images[0].name, sides=decoded.geometry.shape)
            return Sample(input=decoded.values, target=target)
        volumes, label = [open_volume(path) for path in images], open_volume(mask)
        label = check_pair(volumes[0], label)
        values = decode_volumes(volumes, wanted).values
        return Sample(input=values, target=read_labels(label, grid_of(wanted), classes=classes))


def _optional(columns: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if columns is None else names_in(columns)


def _find_sources(
    root: Root, table: TextTable, columns: Sequence[str], *, problems: Problems, size: Sequence[int], masks: bool
) -> list[Sources]:
    """The files of every row, after checking that they exist and are in no other row."""
    fields = [table.column(name) for name in columns]
    sources: list[Sources] = []
    first: dict[str, int] = {}
    images = len(columns) - masks
    for row, names in enumerate(zip(*fields, strict=True)):
        paths = []
        for place, name in enumerate(names):
            problem = "is empty"
            if name:
                try:
                    path = root.locate(name, source="")
                except InputError as error:
                    problem = error.problem
                else:
                    problem = _problem_with(root, path, size, is_picture_mask=place >= images)
                    paths.append(path)
            if problem:
                problems.add(row, f"{columns[place]} = {name!r} {problem}" if name else f"{columns[place]} is empty")
        for place, name in enumerate(names):
            # A file in two rows would put one patient into two records, and ε would not protect the patient as a whole.
            other = first.setdefault(posixpath.normpath(name), row) if name else row
            if other != row:
                problems.add(row, f"{columns[place]} = {name!r} is already on line {problems.line_of(other)}")
        sources.append(tuple(paths))
    return sources


def _problem_with(root: Root, path: Path, size: Sequence[int], *, is_picture_mask: bool) -> str:
    volume = is_volume(size)
    if not os.path.isfile(path):
        if volume and os.path.isdir(path):
            return _problem_with_series(root, path)
        return "is missing: there is no such file below data.root"
    if is_picture_mask and not volume:
        return ""
    return problem_with(kind_of_name(path.name), size) or ""


def _problem_with_series(root: Root, folder: Path) -> str:
    try:
        root.check_links(folder, source="")
    except InputError as error:
        return f"cannot be read, since {error.problem}"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


def _learnt(config: TableData, table: TextTable, problems: Problems) -> _Learnt:
    if config.mask is not None:
        return _Learnt(task="segmentation", names=config.class_names or _MASK_NAMES)
    if config.targets is not None:
        names = names_in(config.targets)
        columns = [_numbers(table.column(name), name, problems) for name in names]
        return _Learnt(task="regression", names=names, targets=np.stack(columns, axis=1))
    names = _optional(config.labels)
    if len(names) == 1:
        return _classes(config, table.column(names[0]), names[0], problems)
    if config.class_names is not None:
        raise InputError("several labels take their names from their columns", where="data.class_names")
    columns = [_label_column(table.column(name), name, problems) for name in names]
    return _Learnt(task="multi-label", names=names, targets=np.stack(columns, axis=1))


def _classes(config: TableData, fields: list[str], column: str, problems: Problems) -> _Learnt:
    found = sorted(set(fields) - {""})
    names = config.class_names or tuple(found)
    if len(found) > _MAX_CLASSES:
        raise InputError(
            f"the column {column!r} has {len(found):,} different values, too many for classes",
            where="data.labels",
            remedy="Name numbers to predict in data.targets.",
        )
    if len(names) < 2:  # noqa: PLR2004 a single class leaves nothing to learn
        raise InputError(f"the column {column!r} has {len(names)} classes; two are needed", where="data.labels")
    # Read by machine, -1 stands for unknown, and would become a class of its own.
    unknown = {""} if config.class_names else {"", *_UNKNOWN}
    number_of = {name: number for number, name in enumerate(names) if name not in unknown}
    labels = np.array([number_of.get(field, -1) for field in fields], np.int32)
    for row in np.flatnonzero(labels < 0).tolist():
        field = fields[row]
        problem = f"= {field!r} is not in data.class_names" if field else "is empty, but a class must be known"
        if field in unknown - {""}:
            problem = f"= {field!r} means unknown, but a class must be known (or named in data.class_names)"
        problems.add(row, f"{column} {problem}")
    return _Learnt(task="classification", names=names, labels=labels)


def _label_column(fields: list[str], column: str, problems: Problems) -> Int8[np.ndarray, " sample"]:
    values = np.array([_LABELS.get(field, _BAD_LABEL) for field in fields], np.int8)
    for row in np.flatnonzero(values == _BAD_LABEL).tolist():
        problems.add(row, f"{column} = {fields[row]!r} is not 0, 1, or (for unknown) empty or -1")
    return values


def _numbers(fields: list[str], column: str, problems: Problems) -> Float[np.ndarray, " sample"]:
    values = np.full(len(fields), np.nan, np.float32)
    for row, field in enumerate(fields):
        if field:
            value = _number(field)
            if value is None:
                problems.add(row, f"{column} = {field!r} is not a finite number")
            else:
                values[row] = value
    return values


def _number(field: str) -> float | None:
    try:
        value = float(field)
    except ValueError:
        return None
    return value if abs(value) < _LARGEST_NUMBER and "_" not in field else None


def _groups(config: TableData, table: TextTable, sources: list[Sources], root: Root, problems: Problems) -> list[str]:
    if config.patient is None:
        # Every sample is its own unit, named by its first file.
        return [os.path.relpath(files[0], root.path) if files else "" for files in sources]
    if config.patient == HEADER:
        # Files are opened only once the table itself is valid.
        problems.settle(str(table.path))
        images = len(names_in(config.image))
        return patients_by_header([files[:images] for files in sources], others="a column of the table")
    patients = table.column(config.patient)
    for row, patient in enumerate(patients):
        if not patient:
            problems.add(row, f"{config.patient} is empty")
    return patients


def _patient_column(config: TableData) -> str | None:
    return None if config.patient == HEADER else config.patient


def _split(fields: list[str], groups: list[str], problems: Problems, *, shows: bool) -> Split:
    numbers: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    part_of: dict[str, tuple[str, int]] = {}
    for row, (field, group) in enumerate(zip(fields, groups, strict=True)):
        part = PART_NAMES.get(field.lower())
        if part is None:
            problems.add(row, f"the split {field!r} is not train, val or test")
            continue
        numbers[part].append(row)
        other, first = part_of.setdefault(group, (part, row))
        if other != part:
            who = repr(group) if shows else "the patient of this line's file"
            problems.add(row, f"{who} is in {part} here, but in {other} on line {problems.line_of(first)}")
    return Split(**{part: np.asarray(rows, np.int64) for part, rows in numbers.items()})


def _info(config: TableData, preprocessing: Preprocessing, learnt: _Learnt) -> Info:
    default_mean, default_std = preprocessing.constants
    mean, std, outside = normalisation(
        config, mean=default_mean, std=default_std, channels=preprocessing.channels, note=None
    )
    outside = (*outside, *depth_notes(config))
    if config.patient is None:
        outside = (*outside, unnamed_patients("Without data.patient the table names"))
    if learnt.task == "classification" and config.class_names is None:
        outside = (*outside, CLASSES_READ)
    if config.target_mean is not None or config.target_std is not None:
        outside = (*outside, TARGET_CONSTANTS)
    targets = learnt.names if learnt.task == "regression" else ()
    return Info(
        name="table",
        task=learnt.task,
        input_shape=preprocessing.input_shape,
        class_names=() if learnt.task == "regression" else learnt.names,
        scale=preprocessing.scale,
        mean=mean,
        std=std,
        unit="image" if config.patient is None else "patient",
        outside_accounting=outside,
        value_range=preprocessing.value_range,
        preprocessing=preprocessing,
        target_names=targets,
        target_mean=config.target_mean or (0.0,) * len(targets),
        target_std=config.target_std or (1.0,) * len(targets),
        patients_unknown=config.patient is None,
    )
