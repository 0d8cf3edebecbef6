"""Determines which files below a folder are samples, by their names or, if these say nothing, by their first bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from dpmed.data.decode.recognise import Kind, is_slice, kind_of_name, recognise
from dpmed.data.listing.sources import Root


@dataclass(frozen=True, kw_only=True)
class Found:
    """The content of a folder, subfolders included.

    Attributes:
        files: the kind of each file that dpmed reads, by its name below the root, sorted.
        left_out: names of all other files, sorted.
        hidden: names of files and folders that begin with a dot; these are not opened.
    """

    files: Mapping[str, Kind]
    left_out: Sequence[str]
    hidden: Sequence[str]


def find_files(root: Root, *, ignored: Sequence[str] = ()) -> Found:
    """Find all files below the root; only those without a known extension are opened.

    Args:
        root: to look below.
        ignored: names of files to leave out of both lists.

    Raises:
        InputError: a file leads outside the root.
    """
    files: dict[str, Kind] = {}
    left_out: list[str] = []
    hidden: list[str] = []
    for name in root.walk(hidden=hidden):
        if name in ignored:
            continue
        kind = kind_of_name(name)
        if kind is None and is_slice(PurePosixPath(name).name):
            kind = recognise(root.locate(name, source=str(root.path)))
        if kind is None:
            left_out.append(name)
        else:
            files[name] = kind
    return Found(files=files, left_out=left_out, hidden=hidden)


def group_series(files: Mapping[str, Kind], *, own_depth: int) -> dict[str, list[str]]:
    """Names of the files of each volume, by the name of the volume.

    Args:
        files: as found.
        own_depth: DICOM files in folders of at most this depth are separate volumes (with many frames); those in deeper
            ones are series, one per folder.
    """
    groups: dict[str, list[str]] = {}
    for name, kind in files.items():
        folder = PurePosixPath(name).parent
        key = folder.as_posix() if kind == "dicom" and len(folder.parts) > own_depth else name
        groups.setdefault(key, []).append(name)
    return groups
