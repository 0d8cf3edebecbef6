"""`predictions.csv` as it grows: rows are appended in blocks that are on the disk before the next begins."""

import contextlib
import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dpmed.errors import InputError, RunError
from dpmed.files import FILE_MODE

Row = Mapping[str, object]


class RowFile:
    r"""A CSV file that is written from beginning to end, in one session or several.

    One row is one line: line breaks in cells are written as `\n`. A line truncated by a crash is removed.

    Args:
        path: the file; it may hold rows from an earlier session.
        columns: the header.
        first: the first cells of all rows, in order; existing rows must agree.

    Attributes:
        rows: how many rows it holds.
        reasons: what the last cell of each of them says, if it says anything: why an input could not be read.

    Raises:
        InputError: the file has other columns, or rows for other inputs.
        RunError: it cannot be read or written.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, first: Sequence[str]) -> None:
        self._path = path
        self._columns = list(columns)
        self.reasons: Counter[str] = Counter()
        self.rows, self._end = self._read(first) if path.exists() else (0, 0)

    @contextmanager
    def open(self) -> Iterator["Appender"]:
        """Append rows within this context.

        Raises:
            RunError: they cannot be written; the rows of earlier blocks stay, and no part of a later one.
        """
        appender: Appender | None = None
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, FILE_MODE)
            with os.fdopen(descriptor, "wb") as file:
                appender = Appender(file, self._columns, self._end)
                appender.begin()
                yield appender
        except OSError as error:
            if appender is not None:
                self._tidy(appender.end)
            remedy = "Existing predictions are kept; free some space and run the same command again."
            raise RunError(
                f"could not be written ({error.strerror or error})", where=str(self._path), remedy=remedy
            ) from error

    def _tidy(self, end: int) -> None:
        # What ails the disk may forbid this as well; the next session then removes what is cut off.
        with contextlib.suppress(OSError):
            if end:
                os.truncate(self._path, end)
            else:
                self._path.unlink()

    def _read(self, first: Sequence[str]) -> tuple[int, int]:
        rows = end = 0
        where = str(self._path)
        with self._path.open("rb") as file:
            header = file.readline()
            if not header.endswith(b"\n"):
                return 0, 0
            if _cells(header) != [_one_line(name) for name in self._columns]:
                raise InputError("was begun with other columns", where=where, remedy="Choose another folder.")
            end = len(header)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                cells = _cells(line)
                if rows >= len(first) or len(cells) != len(self._columns) or cells[0] != _one_line(first[rows]):
                    remedy = "Give the same inputs in the same order, or choose another folder."
                    raise InputError(f"row {rows + 1} is for another input", where=where, remedy=remedy)
                if cells[-1]:
                    self.reasons[cells[-1]] += 1
                rows, end = rows + 1, end + len(line)
        return rows, end


class Appender:
    """Appends blocks of rows to an open file.

    Attributes:
        end: bytes of whole blocks that are on the disk.
    """

    def __init__(self, file: BinaryIO, columns: Sequence[str], end: int) -> None:
        self._file = file
        self._columns = columns
        self.end = end

    def begin(self) -> None:
        """Remove what a crash cut off, and write the first line where there is none."""
        if os.fstat(self._file.fileno()).st_size > self.end:
            self._file.truncate(self.end)
        self._file.seek(self.end)
        if self.end == 0:
            self._append([self._columns])

    def write(self, rows: Sequence[Row]) -> None:
        """Append rows, which are on the disk when this returns; a missing value stays empty."""
        self._append([[row.get(name, "") for name in self._columns] for row in rows])

    def _append(self, rows: Sequence[Sequence[object]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([_one_line(str(cell)) for cell in row] for row in rows)
        content = text.getvalue().encode("utf-8", "surrogateescape")
        self._file.write(content)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.end += len(content)


def _cells(line: bytes) -> list[str]:
    try:
        return next(csv.reader([line.decode("utf-8", "surrogateescape")]), [])
    except csv.Error:
        # Such as a carriage return in a cell: none of our lines, and so like none that is wanted.
        return []


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")
