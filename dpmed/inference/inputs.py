"""The inputs to predict: files, folders and tables as one list, each with a name for its output files."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpmed.data.decode.recognise import DICOM_ENDINGS, NIFTI_ENDINGS, PICTURE_ENDINGS, is_slice, kind_of_name, recognise
from dpmed.data.listing.sources import read_table
from dpmed.errors import InputError

ARRAY_ENDINGS = (".npy",)
COLUMN = "image"
_TABLE_ENDINGS = (".csv",)
_KINDS = {"picture": ("picture", "dicom"), "volume": ("nifti", "dicom")}
_ENDINGS = PICTURE_ENDINGS + DICOM_ENDINGS + NIFTI_ENDINGS + ARRAY_ENDINGS
_LONGEST_NAME = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file to predict.

    Attributes:
        input: its path as given by the user, or as in the folder or table; shown in the column `input`.
        path: the file.
        name: stem of its output files; unique, without folders and extension.
    """

    input: str
    path: Path
    name: str


def list_inputs(given: Sequence[Path], *, kind: str) -> list[Entry]:
    """All files, in the order given; those of a folder sorted by path.

    Args:
        given: files, folders (searched below, hidden files left out) and CSV tables with a column `image`, whose paths
            are relative to the table's folder. For volumes, a folder with several DICOM files and no other volumes is
            one series and one input.
        kind: `picture` or `volume`: what to look for in folders.

    Raises:
        InputError: a path does not exist, a folder holds no file of the kind, or a table has no such column.
    """
    found: list[tuple[str, Path]] = []
    for path in given:
        if path.is_dir():
            found += _in_folder(path, kind)
        elif path.name.lower().endswith(_TABLE_ENDINGS):
            found += _in_table(path)
        elif path.exists():
            found.append((str(path), path))
        else:
            raise InputError("there is no such file or folder", where=str(path))
    if not found:
        raise InputError("no input was given", where="INPUT", remedy="Give files, folders or a CSV table.")
    names = _names([text for text, _ in found])
    return [Entry(input=text, path=path, name=name) for (text, path), name in zip(found, names, strict=True)]


def _in_folder(folder: Path, kind: str) -> list[tuple[str, Path]]:
    found: list[Path] = []
    for below, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = [name for name in sorted(files) if is_slice(name)]
        kinds = [_kind(Path(below), name) for name in names]
        if kind == "volume" and kinds.count("dicom") > 1 and not {"nifti", "array"} & set(kinds):
            # The slices of one series, which form a volume; a file beside them that is none is named when it is read.
            found.append(Path(below))
            continue
        wanted = (*_KINDS[kind], "array")
        found += [Path(below, name) for name, one in zip(names, kinds, strict=True) if one in wanted]
    if not found:
        raise InputError(f"holds no {kind} to predict", where=str(folder))
    return [(str(path), path) for path in found]


def _kind(folder: Path, name: str) -> str | None:
    """The kind by file extension; files from hospitals often have none, so their content is inspected."""
    if name.lower().endswith(ARRAY_ENDINGS):
        return "array"
    return kind_of_name(name) if "." in name else recognise(folder / name)


def _in_table(path: Path) -> list[tuple[str, Path]]:
    table = read_table(path, [COLUMN])
    found = []
    for row, name in enumerate(table.column(COLUMN)):
        if not name or "\0" in name:
            raise InputError(f"names no file in the column {COLUMN!r}", where=table.where(row))
        found.append((name, path.parent / name))
    return found


def _names(inputs: Sequence[str]) -> list[str]:
    """A name for each input: the file's name, preceded by folders if several are equal, and if needed a number."""
    stems = [_stem(text) for text in inputs]
    counts = Counter(stem.lower() for stem in stems)
    names, taken = [], set[str]()
    for text, stem in zip(inputs, stems, strict=True):
        name = stem
        if counts[stem.lower()] > 1:
            parts = [part for part in Path(text).parent.parts if part not in ("/", "..", ".")]
            name = "__".join([*parts, stem])
        name = name[-_LONGEST_NAME:] or "input"
        candidate, number = name, 1
        while candidate.lower() in taken:
            number += 1
            candidate = f"{name}-{number}"
        taken.add(candidate.lower())
        names.append(candidate)
    return names


def _stem(text: str) -> str:
    name = Path(text).name
    for ending in sorted(_ENDINGS, key=len, reverse=True):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name
