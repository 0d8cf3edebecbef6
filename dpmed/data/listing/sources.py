"""Reads untrusted folders and tables to find the files of a data set.

Nothing outside the root is ever opened: names with `..`, absolute names and links that lead outside are refused.
"""

import difflib
import io
import os
import stat
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from dpmed.data.decode.recognise import is_slice
from dpmed.data.listing.names import check_name
from dpmed.errors import InputError

_MAX_TABLE_BYTES = 1 << 28
_MAX_COLUMNS = 4096
_SUSPECTS = {";": "semicolons", "\t": "tabs", "|": "bars"}


class Root:
    """The folder that contains all files of a data set.

    Args:
        path: as written by the user.

    Raises:
        InputError: there is no such folder.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise InputError(
                "there is no such folder",
                where=f"data.root = {str(path)!r}",
                remedy="Put the data set there, or try synthetic data from `dpmed phantom`.",
            )
        self.path = path
        self._resolved = Path(os.path.realpath(path))
        self._prefix = os.path.join(path, "")
        self._safe_folders: set[str] = set()

    def locate(self, name: str, *, source: str) -> Path:
        """The path of the file `name`, below the root.

        Each folder is resolved only once, so that a million names cost a million `lstat` calls, not a million
        resolutions.

        Args:
            name: relative to the root, as in a table or folder listing.
            source: where the name comes from, such as table and line, for messages.

        Raises:
            InputError: the name leads outside the root, or no file of a data set can have it.
        """
        # Strings rather than paths on the way: a list may hold a million names.
        check_name(name, self.path, source=source)
        folder = name.rpartition("/")[0]
        text = f"{self._prefix}{name}"
        if folder not in self._safe_folders:
            self._check(self.path / folder, name, source)
            self._safe_folders.add(folder)
        if os.path.islink(text):
            self._check(Path(text), name, source)
        return Path(text)

    def walk(self, *, hidden: list[str] | None = None) -> Iterator[str]:
        """Names of all files below the root, sorted; hidden ones are left out, linked folders not entered.

        Args:
            hidden: receives the names of hidden files and folders that are left out, folders with a trailing slash.
        """
        left_out = [] if hidden is None else hidden
        for folder, folders, names in os.walk(self.path):
            below = Path(folder).relative_to(self.path)
            left_out += [f"{(below / name).as_posix()}/" for name in sorted(folders) if name.startswith(".")]
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if name.startswith("."):
                    left_out.append((below / name).as_posix())
                else:
                    yield (below / name).as_posix()

    def check_links(self, folder: Path, *, source: str) -> None:
        """Check the links in a folder all of whose files are read, the slices of a series; see `locate`."""
        with os.scandir(folder) as entries:
            for link in (entry for entry in entries if entry.is_symlink()):
                self._check(Path(link.path), link.name, source)

    def _check(self, path: Path, name: str, source: str) -> None:
        if not Path(os.path.realpath(path)).is_relative_to(self._resolved):
            raise InputError(f"{name!r} is a link that leads out of the folder {self.path}", where=source)


class TextTable:
    """A comma-separated table as text, with the line number of each row.

    Args:
        path: the file, for messages.
        names: names of the columns, in order.
        lines: line on which each row begins; the header is line 1.
        frame: pandas data frame with one numbered column per name.
    """

    def __init__(self, path: Path, names: Sequence[str], *, lines: Int[np.ndarray, " row"], frame: Any) -> None:
        self.path = path
        self.names = tuple(names)
        self.lines = lines
        self._frame = frame

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, name: str) -> list[str]:
        """The fields of one column, stripped of spaces; an empty field is empty text."""
        fields: list[str] = self._frame[self.names.index(name)].str.strip().tolist()
        return fields

    def where(self, row: int) -> str:
        """File and line of a row, for messages."""
        return f"{self.path} line {self.lines[row]}"


def check_distinct(samples: Sequence[Sequence[Path]]) -> None:
    """Check that no file belongs to two samples, whatever names or links lead to it.

    Such a file would put one patient into two records, and ε would not protect the patient as a whole.

    Args:
        samples: the files of each sample; a folder stands for the files in it, the slices of a series.

    Raises:
        InputError: a file belongs to two samples.
    """
    places: dict[str, _Place] = {}

    def place_of(folder: str) -> _Place:
        place = places.get(folder)
        if place is None:
            place = places[folder] = _Place(folder or "/")
        return place

    def listed() -> Iterator[tuple[int, Path, str]]:
        for number, paths in enumerate(samples):
            for path in paths:
                folder, _, name = str(path).rpartition("/")
                place = place_of(folder)
                yield number, path, place.real(name)
                if place.is_folder(name):
                    series = place_of(str(path))
                    yield from ((number, path / one, series.real(one)) for one in series.slices())

    _check_names(listed)
    _check_hard_links(listed, places)


# Each file of all samples, and each folder and the files in it: its sample's number, its path, and the same without
# links.
_Listed = Callable[[], Iterator[tuple[int, Path, str]]]


def _check_names(listed: _Listed) -> None:
    # Numbers first, since a million names take much memory; nearly always these settle it.
    hashes = np.fromiter((hash(real) for _, _, real in listed()), np.int64)
    values, counts = np.unique(hashes, return_counts=True)
    suspects = set(values[counts > 1].tolist())
    if not suspects:
        return
    owners: dict[str, tuple[int, Path]] = {}
    for number, path, real in listed():
        if hash(real) in suspects:
            _compare(number, path, owners.setdefault(real, (number, path)))


def _check_hard_links(listed: _Listed, places: Mapping[str, "_Place"]) -> None:
    numbers = _hard_links(places.values())
    if not numbers:
        return
    owners: dict[tuple[int, int], tuple[int, Path]] = {}
    for number, path, real in listed():
        if real in numbers:
            _compare(number, path, owners.setdefault(numbers[real], (number, path)))


class _Place:
    """A folder without links in its own path, listed once: asking about each file takes as long as locating it.

    Attributes:
        folder: its path.
        inodes: of its entries; of symbolic links, those of what they lead to.
    """

    def __init__(self, folder: str) -> None:
        self.folder = os.path.realpath(folder)
        self.inodes = array("Q")
        self._links: set[str] | None = None
        self._folders: set[str] = set()
        try:
            with os.scandir(folder) as entries:
                links = set()
                for entry in entries:
                    if entry.is_symlink():
                        links.add(entry.name)
                    if _is_folder(entry):
                        self._folders.add(entry.name)
                    self.inodes.append(_inode(entry))
                self._links = links
        except OSError:
            # It may be entered but not listed, or there is none: whoever reads its files says so.
            pass

    def real(self, name: str) -> str:
        path = f"{self.folder}/{name}"
        return os.path.realpath(path) if self._links is None or name in self._links else path

    def is_folder(self, name: str) -> bool:
        return os.path.isdir(f"{self.folder}/{name}") if self._links is None else name in self._folders

    def slices(self) -> Iterator[str]:
        """Names of the files in it that are read as one series; none if it cannot be listed."""
        names = [] if self._links is None else os.listdir(self.folder)
        return (name for name in names if name not in self._folders and is_slice(name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links
        return False


def _inode(entry: os.DirEntry[str]) -> int:
    """The inode of a file; the listing has it, so that nothing is asked of the file unless it is a symbolic link."""
    try:
        return entry.stat().st_ino if entry.is_symlink() else entry.inode()
    except OSError:  # a link to nothing
        return entry.inode()


def _hard_links(places: Collection[_Place]) -> dict[str, tuple[int, int]]:
    """Device and inode, by path without links, of the files that have several names in these folders."""
    distinct = {place.folder: place for place in places}
    listed = [np.array(place.inodes, np.uint64) for place in distinct.values()]
    values, counts = np.unique(np.concatenate(listed) if listed else [], return_counts=True)
    suspects = set(values[counts > 1].tolist())
    found: dict[str, tuple[int, int]] = {}
    for folder, place in distinct.items():
        if suspects.isdisjoint(place.inodes):
            continue
        with os.scandir(folder) as entries:
            for entry in entries:
                if _inode(entry) not in suspects or not os.path.exists(entry.path):
                    continue
                # Listings of some file systems have the same number for all, and each device numbers its own.
                status = entry.stat()
                if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                    found[os.path.realpath(entry.path)] = (status.st_dev, status.st_ino)
    return found


def _compare(number: int, path: Path, owner: tuple[int, Path]) -> None:
    if owner[0] != number:
        raise InputError(
            "belongs to two samples, alone or as part of a series"
            if path == owner[1]
            else f"is the same file as {owner[1]}, but belongs to another sample",
            where=str(path),
            remedy="Remove one of the two: ε would not protect a patient whose image is in two records.",
        )


def read_table(path: Path, columns: Sequence[str]) -> TextTable:
    """Read a comma-separated table with a header, by pandas, as text.

    pandas pads rows that are too short and truncates some that are too long, so the number of fields in every row is
    first compared with the header.

    Args:
        path: the file, UTF-8.
        columns: the required columns; others are also kept.

    Raises:
        InputError: the file is missing, too large or not such a table, lacks a column or has a row of another length.
    """
    import pandas as pd

    content = _read_bytes(path)
    records = _Records.of(content)
    _check_records(path, records)
    try:
        frame = pd.read_csv(io.BytesIO(content), header=None, dtype=str, na_filter=False, encoding="utf-8")
    except (ValueError, OverflowError) as error:  # pandas' own errors are kinds of ValueError
        raise InputError(f"cannot be read ({str(error).strip()})", where=str(path)) from error
    if len(frame) != len(records.lines):
        raise InputError("has quotation marks in the middle of a field", where=str(path))
    names = frame.iloc[0].str.strip().tolist()
    _check_header(path, names, columns)
    if len(frame) == 1:
        raise InputError("has a header but no rows", where=str(path))
    return TextTable(path, names, lines=records.lines[1:], frame=frame.iloc[1:])


@dataclass(frozen=True, kw_only=True)
class _Records:
    """The line on which each record begins, and its number of fields; empty records are left out."""

    lines: Int[np.ndarray, " record"]
    fields: Int[np.ndarray, " record"]
    is_closed: bool

    @classmethod
    def of(cls, content: bytes) -> "_Records":
        data = np.frombuffer(content, np.uint8)
        # A quotation mark opens or closes a field; a doubled one within a field does both.
        quoted = np.logical_xor.accumulate(data == ord('"'))
        breaks = data == ord("\n")
        starts = np.concatenate([[0], np.flatnonzero(breaks & ~quoted) + 1])
        starts = starts[starts < len(data)]
        if len(starts) == 0:
            return cls(lines=starts, fields=starts, is_closed=True)
        fields = np.add.reduceat((data == ord(",")) & ~quoted, starts, dtype=np.int64) + 1
        before = np.add.reduceat(breaks, starts, dtype=np.int64).cumsum()
        lines = 1 + np.concatenate([[0], before[:-1]])
        is_blank = breaks[starts]
        return cls(lines=lines[~is_blank], fields=fields[~is_blank], is_closed=not quoted[-1])


def _check_records(path: Path, records: _Records) -> None:
    if not records.is_closed:
        raise InputError("has a quotation mark that is never closed", where=str(path))
    if len(records.lines) == 0:
        raise InputError("is empty", where=str(path))
    expected = int(records.fields[0])
    if expected > _MAX_COLUMNS:
        raise InputError(f"has {expected:,} columns; more than {_MAX_COLUMNS:,} are refused", where=str(path))
    wrong = np.flatnonzero(records.fields != expected)
    if len(wrong):
        first = int(wrong[0])
        raise InputError(
            f"line {records.lines[first]} has {records.fields[first]} fields, but the header has {expected}"
            + (f", and so in {len(wrong) - 1} more lines" if len(wrong) > 1 else ""),
            where=str(path),
            remedy="A field that holds a comma needs quotation marks.",
        )


def _read_bytes(path: Path) -> bytes:
    """The file in UTF-8, with every line ended by a line feed."""
    try:
        if path.stat().st_size > _MAX_TABLE_BYTES:
            raise InputError(f"is longer than {_MAX_TABLE_BYTES:,} bytes, which is refused", where=str(path))
        content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except FileNotFoundError as error:
        raise InputError(
            "there is no such file", where=str(path), remedy="It is part of the data set; data.root must contain it."
        ) from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from error
    content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    bad = content.find(b"\0")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = error.start
    if bad >= 0:
        line = content.count(b"\n", 0, bad) + 1
        raise InputError(f"line {line} holds bytes that are not UTF-8 text", where=str(path))
    return content


def _check_header(path: Path, header: list[str], columns: Sequence[str]) -> None:
    for sign, name in _SUSPECTS.items():
        if len(header) == 1 and sign in header[0]:
            remedy = "Separate them by commas."
            raise InputError(f"its fields are separated by {name}", where=str(path), remedy=remedy)
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        raise InputError(f"has two columns of the same name, {repeated[0]!r}", where=str(path))
    missing = [name for name in columns if name not in header]
    if missing:
        guesses = difflib.get_close_matches(missing[0], header, n=1)
        remedy = f"Did you mean {guesses[0]}?" if guesses else ""
        text = ", ".join(header)[:200]
        raise InputError(f"lacks the column {', '.join(missing)}; it has: {text}", where=str(path), remedy=remedy)
