"""Reads arrays from untrusted `.npz` files: no pickles, and sizes are checked before anything is allocated.

`numpy.load` can read objects and allocates what the header declares; here the header is read first and checked against
the archive's own directory, and the bytes are then streamed into an array supplied by the caller.
"""

import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from dpmed.errors import InputError
from dpmed.tensors import npy_header

_CHUNK_BYTES = 1 << 22
_MAX_BYTES = 1 << 36
_DEFLATE_RATIO = 1032
_ENCRYPTED = 1  # flag of a zip member

Allocate = Callable[[tuple[int, ...], np.dtype], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One array of an archive, as its header declares it.

    Attributes:
        name: without `.npy`.
        shape: of the array.
        dtype: of its elements, never objects.
        offset: where the elements begin in the member.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int


class NpzFile:
    """An `.npz` file: arrays by name.

    Args:
        path: the file.

    Raises:
        InputError: it is missing or not a zip archive of arrays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
                if len(entries) > 64:  # noqa: PLR2004 MedMNIST has six
                    raise InputError(f"holds {len(entries)} members, too many for a data set", where=str(path))
                self.members = {
                    entry.filename.removesuffix(".npy"): self._header(archive, entry)
                    for entry in entries
                    if entry.filename.endswith(".npy")
                }
        except (OSError, zipfile.BadZipFile, ValueError, EOFError, zlib.error, RuntimeError) as error:
            raise InputError(f"is not a readable .npz archive ({error})", where=str(path)) from error

    def read(self, name: str, allocate: Allocate = np.empty) -> Shaped[np.ndarray, "..."]:
        """The array `name`, in memory or in what `allocate` makes, such as a memory-mapped file.

        Raises:
            InputError: there is no such array, or its bytes are damaged.
        """
        member = self.members.get(name)
        if member is None:
            held = ", ".join(sorted(self.members)) or "none"
            raise InputError(f"has no array {name!r}; it has: {held}", where=str(self.path))
        array = allocate(member.shape, member.dtype)
        flat = array.reshape(-1).view(np.uint8)
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as stream:
                stream.read(member.offset)
                done = 0
                while done < len(flat):
                    chunk = stream.read(min(_CHUNK_BYTES, len(flat) - done))
                    if not chunk:
                        raise InputError(f"ends in the middle of {name!r}", where=str(self.path))
                    flat[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
                    done += len(chunk)
                stream.read(1)  # lets zipfile compare the checksum, which it does at the end
        except (OSError, zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:
            raise InputError(f"is damaged at {name!r} ({error})", where=str(self.path)) from error
        return array

    def _header(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Member:
        if entry.flag_bits & _ENCRYPTED or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(
                f"has {entry.filename!r} encrypted or packed in a way NumPy does not", where=str(self.path)
            )
        with archive.open(entry) as stream:
            member = self._parse(stream, entry.filename.removesuffix(".npy"))
        size = member.dtype.itemsize
        for side in member.shape:
            size *= side
        problem = ""
        if member.dtype.hasobject or member.dtype.kind not in "biuf":
            problem = f"holds Python objects or text in {entry.filename!r}, which are not read: they could run code"
        elif size + member.offset != entry.file_size or size > _MAX_BYTES:
            problem = f"declares {member.shape} in {entry.filename!r}, which does not fit its {entry.file_size:,} bytes"
        elif entry.file_size > entry.compress_size * _DEFLATE_RATIO + _CHUNK_BYTES:
            problem = f"declares {entry.file_size:,} bytes packed in {entry.compress_size:,}, which cannot be"
        if problem:
            raise InputError(problem, where=str(self.path))
        return member

    def _parse(self, stream: Any, name: str) -> Member:
        shape, fortran, dtype = npy_header(stream)
        if fortran and len(shape) > 1:
            raise InputError(f"has {name!r} in column order, which is not read", where=str(self.path))
        return Member(name=name, shape=shape, dtype=dtype, offset=stream.tell())
