"""Folders and tables that nobody vouches for: which files a data set consists of.

Nothing outside the root is ever opened: names with `..`, absolute names and links that lead out are refused.
"""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dpmed.errors import InputError

_MAX_TABLE_BYTES = 1 << 30
_SUSPECTS = {";": "semicolons", "\t": "tabs", "|": "bars"}


class Root:
    """The folder that all files of a data set lie in.

    Args:
        path: as the user wrote it.

    Raises:
        InputError: there is no such folder.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise InputError(
                "there is no such folder",
                where=f"[data] root = {str(path)!r}",
                remedy="Put the data set there, or try synthetic data by `dpmed phantom`.",
            )
        self.path = path
        self._resolved = Path(os.path.realpath(path))
        self._prefix = os.path.join(path, "")
        self._safe_folders: set[str] = set()

    def locate(self, name: str, *, source: str) -> Path:
        """The path of the file `name`, below the root.

        Folders are resolved once each, so that a million names cost a million `lstat`, not a million resolutions.

        Args:
            name: relative to the root, as a table or a folder listing has it.
            source: what to name in a message: the table and line that the name comes from.

        Raises:
            InputError: the name leads out of the root.
        """
        # Strings rather than paths on the way: a list may hold a million names.
        folder, _, last = name.rpartition("/")
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or "\0" in name or last in ("", "."):
            raise InputError(f"the name {name!r} leads out of the folder {self.path}", where=source)
        text = f"{self._prefix}{name}"
        if folder not in self._safe_folders:
            self._check(self.path / folder, name, source)
            self._safe_folders.add(folder)
        if os.path.islink(text):
            self._check(Path(text), name, source)
        return Path(text)

    def walk(self) -> Iterator[str]:
        """Names of all files below the root, in sorted order; hidden ones are left out, linked folders not entered."""
        for folder, folders, names in os.walk(self.path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = Path(folder).relative_to(self.path)
            for name in sorted(names):
                if not name.startswith("."):
                    yield (below / name).as_posix()

    def _check(self, path: Path, name: str, source: str) -> None:
        if not Path(os.path.realpath(path)).is_relative_to(self._resolved):
            raise InputError(f"{name!r} is a link that leads out of the folder {self.path}", where=source)


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a comma-separated table with a header.

    Args:
        path: the file, UTF-8.
        columns: the columns that must be there; others are kept as well.

    Returns:
        One dictionary per row.

    Raises:
        InputError: the file is missing, is not such a table, lacks a column or has a row of another length.
    """
    text = _read_text(path)
    header_line = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header, header_line, columns)
        rows = []
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise InputError(
                    f"line {reader.line_num} has {len(row)} fields, but the header has {len(header)}", where=str(path)
                )
            rows.append(dict(zip(header, (field.strip() for field in row), strict=True)))
    except csv.Error as error:
        raise InputError(f"line {reader.line_num} cannot be read ({error})", where=str(path)) from error
    if not rows:
        raise InputError("has a header but no rows", where=str(path))
    return rows


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_TABLE_BYTES:
            raise InputError(f"is over {_MAX_TABLE_BYTES:,} bytes long, which is refused", where=str(path))
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(
            "there is no such file", where=str(path), remedy="It comes with the data set; data.root must hold it."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as text ({error})", where=str(path)) from error


def _check_header(path: Path, header: list[str], line: str, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in header]
    if not missing:
        if len(set(header)) != len(header):
            raise InputError("has two columns of the same name", where=str(path))
        return
    for sign, name in _SUSPECTS.items():
        if sign in line and "," not in line:
            raise InputError(
                f"its fields are separated by {name}",
                where=str(path),
                remedy="Separate them by commas, as the source does.",
            )
    text = ", ".join(header)[:200] or "none"
    raise InputError(f"lacks the column {', '.join(missing)}; it has: {text}", where=str(path))
