"""The table of matches, `matches.csv`: written by `match`, read by `visualize` and perhaps from elsewhere."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from dpmed.errors import InputError
from dpmed.files import write_csv

MATCHES = "matches.csv"
UNRELATED = "unrelated.csv"
SETTINGS = "match.json"


@dataclass(frozen=True, kw_only=True)
class MatchRow:
    """One original at one level by one metric; its fields are the columns of the table.

    Attributes:
        batch: batch of the original.
        index: index of the original in its batch.
        original: its file, relative to the folder of reconstructions.
        nonzero_ratio: its fraction of pixels above the lowest value.
        level: the level's folder.
        epsilon: ε of the level; infinite without privacy.
        metric: name of the distance.
        distance: distance to the assigned reconstruction; None if there is none.
        nearest: number of the reconstruction in its batch; None if there is none.
        reconstruction: its file; None if there is none.
        note: how the metric differs from its published definition.
    """

    batch: int
    index: int
    original: str
    nonzero_ratio: float
    level: str
    epsilon: float
    metric: str
    distance: float | None
    nearest: int | None
    reconstruction: str | None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class UnrelatedRow:
    """An original's nearest other original in its batch, which shows how similar different images can be.

    Attributes:
        batch: batch of the original.
        index: index of the original.
        metric: name of the distance.
        distance: distance to the nearest other original.
        nearest: that other's index.
    """

    batch: int
    index: int
    metric: str
    distance: float
    nearest: int


def write_matches(path: Path, rows: Sequence[MatchRow]) -> None:
    """Write the table, whole or not at all."""
    write_csv(path, map(asdict, rows), [field.name for field in fields(MatchRow)])


def write_unrelated(path: Path, rows: Sequence[UnrelatedRow]) -> None:
    """Write the table of unrelated images."""
    write_csv(path, map(asdict, rows), [field.name for field in fields(UnrelatedRow)])


def read_matches(path: Path) -> list[MatchRow]:
    """Read and check the table; the column `note` may be absent.

    Raises:
        InputError: the file is missing or empty, lacks a column, or a value is invalid; the message names line and
            column.
    """
    names = [field.name for field in fields(MatchRow)]
    return [_match(record, f"{path}: line {number}") for number, record in _records(path, names, {"note"})]


def read_unrelated(path: Path) -> list[UnrelatedRow]:
    """Read and check the table of unrelated images; empty if there is no such file.

    Raises:
        InputError: a column is missing or a value is invalid.
    """
    if not path.is_file():
        return []
    names = [field.name for field in fields(UnrelatedRow)]
    return [
        UnrelatedRow(
            batch=_whole(record, "batch", where),
            index=_whole(record, "index", where),
            metric=record["metric"],
            distance=_number(record, "distance", where),
            nearest=_whole(record, "nearest", where),
        )
        for number, record in _records(path, names, set())
        for where in [f"{path}: line {number}"]
    ]


def _records(path: Path, names: Sequence[str], optional: set[str]) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in names if name not in (reader.fieldnames or []) and name not in optional]
            if missing:
                raise InputError(
                    f"lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}",
                    where=str(path),
                    remedy="Give the matches.csv that `dpmed match` wrote.",
                )
            return [(reader.line_num, _whole_record(record, path, reader.line_num)) for record in reader]
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read as CSV ({error})", where=str(path)) from error


def _whole_record(record: Mapping[str | None, str | None], path: Path, line: int) -> dict[str, str]:
    if None in record or None in record.values():
        raise InputError("has more or fewer values than the header has columns", where=f"{path}: line {line}")
    return {str(key): str(value) for key, value in record.items()}


def _match(record: Mapping[str, str], where: str) -> MatchRow:
    unmatched = record["distance"] == ""
    return MatchRow(
        batch=_whole(record, "batch", where),
        index=_whole(record, "index", where),
        original=record["original"],
        nonzero_ratio=_number(record, "nonzero_ratio", where),
        level=record["level"],
        epsilon=_number(record, "epsilon", where, infinite=True),
        metric=record["metric"],
        distance=None if unmatched else _number(record, "distance", where),
        nearest=None if unmatched else _whole(record, "nearest", where),
        reconstruction=None if unmatched else record["reconstruction"],
        note=record.get("note", ""),
    )


def _whole(record: Mapping[str, str], name: str, where: str) -> int:
    text = record[name]
    if not (text.isascii() and text.isdigit() and len(text) < 10):  # noqa: PLR2004 a billion images
        raise InputError(f"{name} must be a whole number (got {text!r:.40})", where=where)
    return int(text)


def _number(record: Mapping[str, str], name: str, where: str, *, infinite: bool = False) -> float:
    try:
        value = float(record[name])
    except ValueError:
        value = math.nan
    if math.isnan(value) or (math.isinf(value) and not infinite):
        raise InputError(f"{name} must be a number (got {record[name]!r:.40})", where=where)
    return value
