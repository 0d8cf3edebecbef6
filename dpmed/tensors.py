"""Arrays in files of NumPy's format, and named ones from untrusted safetensors and npz files.

Sizes are checked, and nothing is unpickled.
"""

import math
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from types import SimpleNamespace
from typing import Any, BinaryIO

import ml_dtypes  # noqa: F401 makes bfloat16 known to NumPy, which safetensors needs
import numpy as np
from jaxtyping import Float, Shaped
from safetensors import SafetensorError, safe_open

from dpmed.errors import InputError
from dpmed.pages import page

_MOST_BYTES = 1 << 32
# All numbers of the 16-bit types are numbers of float32.
_TYPES = {"F64", "F32", "F16", "BF16"}
_NO_WEIGHTS = ("I", "U", "BOOL")
_SAFETENSORS = ".safetensors"

Tensors = dict[str, Float[np.ndarray, "..."]]


def read_tensors(path: Path) -> Tensors:
    """All floating-point arrays of a file, as float32; integers, such as batch counters, are left out.

    Args:
        path: `.safetensors` or `.npz`.

    Raises:
        InputError: the file is missing, damaged, too large or of another format.
    """
    if not path.is_file():
        raise InputError("there is no such file", where=str(path))
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"is larger than {_MOST_BYTES:,} bytes, too large for any supported network", where=str(path))
    if path.suffix == _SAFETENSORS:
        return _read_safetensors(path)
    if path.suffix == ".npz":
        return _read_npz(path)
    remedy = f"Files of torch (.pth, .pt) can run code; convert them with {page('convert_weights.py')}."
    raise InputError("must be a .safetensors or .npz file", where=str(path), remedy=remedy)


def take(tensors: Tensors, name: str, shape: tuple[int, ...], *, where: str) -> Float[np.ndarray, "..."]:
    """The array `name`, after checking that it has `shape`.

    Raises:
        InputError: it is missing, of another shape or not finite.
    """
    if name not in tensors:
        raise InputError(f"has no array {name!r}, so it belongs to another network", where=where)
    if tensors[name].shape != shape:
        raise InputError(f"array {name!r} has shape {tensors[name].shape}, but {shape} is needed", where=where)
    if not np.isfinite(tensors[name]).all():
        raise InputError(f"array {name!r} holds values that are not finite", where=where)
    return tensors[name]


def write_array(file: BinaryIO, array: Shaped[np.ndarray, "..."]) -> None:
    """Write an array in NumPy's format, the same bytes as `numpy.save`.

    NumPy hands a file on the disk to C's stdio, and closes that without asking whether what it had kept back was
    written: on a full disk the end of an array is lost unnoticed. Here all bytes pass through Python's own file.

    Args:
        file: open for writing.
        array: of numbers.

    Raises:
        OSError: not all of it could be written.
    """
    np.lib.format.write_array(SimpleNamespace(write=file.write), array, allow_pickle=False)


def npy_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether stored column by column, and type, of an array in NumPy's format; its bytes come next.

    Args:
        stream: a binary file, open at the array.

    Raises:
        ValueError: there is no such header, whatever NumPy makes of it.
        OSError: the file cannot be read.
    """
    try:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = readers[version](stream)
    # NumPy reads the header as Python's literals, by way of Python's own tokenizer.
    except (KeyError, TypeError, SyntaxError, TokenError, MemoryError, RecursionError) as error:
        raise ValueError("its header is not NumPy's") from error
    if any(side < 0 for side in shape):
        raise ValueError("a length is negative")
    return shape, fortran, dtype


def _read_safetensors(path: Path) -> Tensors:
    # Opening checks every shape and offset declared in the header against the file's size, in Rust.
    try:
        with safe_open(path, framework="numpy") as file:
            types = {name: file.get_slice(name).get_dtype() for name in file.keys()}
            unknown = [
                name for name, type_ in types.items() if type_ not in _TYPES and not type_.startswith(_NO_WEIGHTS)
            ]
            if unknown:
                raise InputError(
                    f"holds {unknown[0]!r} as {types[unknown[0]]}, which is not read",
                    where=str(path),
                    remedy="Save the weights as float32, float16 or bfloat16.",
                )
            floats = [name for name, type_ in types.items() if type_ in _TYPES]
            return {name: file.get_tensor(name).astype(np.float32) for name in floats}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"is not a readable safetensors file ({error})", where=str(path)) from error


def _read_npz(path: Path) -> Tensors:
    found: Tensors = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_BYTES:
                raise ValueError("it declares more bytes than any supported network has")
            for entry in archive.infolist():
                with archive.open(entry) as stream:
                    values: Shaped[np.ndarray, "..."] = _read_member(stream, entry.file_size)
                if values.dtype.kind == "f":
                    found[entry.filename.removesuffix(".npy")] = values.astype(np.float32)
    except (OSError, ValueError, KeyError, SyntaxError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"is not a readable .npz archive ({error})", where=str(path)) from error
    # Compressed or encrypted in a way that zipfile does not support.
    except (NotImplementedError, RuntimeError) as error:
        raise InputError(f"is not a readable .npz archive ({error})", where=str(path)) from error
    return found


def _read_member(stream: Any, size: int) -> Shaped[np.ndarray, "..."]:
    shape, fortran, dtype = npy_header(stream)
    bytes_needed = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or bytes_needed > size:
        raise ValueError("an array holds objects, or declares more than its bytes")
    values = np.frombuffer(stream.read(bytes_needed), dtype)
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)
