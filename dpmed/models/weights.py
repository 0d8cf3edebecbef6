"""Weights on the disk, in Equinox's own format: one `.npy` block per array, in the order of the tree.

`equinox.tree_deserialise_leaves` reads these files. The reader here does the same for untrusted files: each block's
header is compared with the model's own array before a byte of content is read, so nothing is unpickled, and nothing is
allocated that the model does not need.
"""

import math
from pathlib import Path
from typing import Any, BinaryIO

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree, Shaped

from dpmed.errors import InputError
from dpmed.files import write_atomically
from dpmed.tensors import npy_header, write_array


def save_weights(path: Path, tree: PyTree) -> None:
    """Write every array of `tree`, whole or not at all.

    Raises:
        RunError: it cannot be written.
    """

    def write(file: BinaryIO) -> None:
        for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array)):
            write_array(file, np.asarray(leaf))

    write_atomically(path, write)


def load_weights(path: Path, like: PyTree) -> PyTree:
    """The tree `like` with its arrays replaced by those of a file.

    Args:
        path: a file written by `save_weights` or `equinox.tree_serialise_leaves`.
        like: determines structure, shapes and types.

    Raises:
        InputError: the file is missing, damaged or belongs to another model; the message names the first array that
            does not fit.
    """
    leaves, structure = jax.tree.flatten_with_path(like)
    try:
        with path.open("rb") as file:
            read = [_read(file, path, jax.tree_util.keystr(place), leaf) for place, leaf in leaves]
            if file.read(1):
                raise InputError("holds more than this model's arrays, so it belongs to another model", where=str(path))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path)) from error
    return jax.tree.unflatten(structure, read)


def read_arrays(path: Path, *, at_least: int) -> list[Shaped[np.ndarray, "..."]]:
    """All arrays of an untrusted file, in order, including integers and running statistics.

    Args:
        path: written by `save_weights` or `equinox.tree_serialise_leaves`.
        at_least: number of arrays needed.

    Raises:
        InputError: the file is missing, damaged, or holds fewer arrays.
    """
    arrays: list[Shaped[np.ndarray, "..."]] = []
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            while file.tell() < size:
                name = str(len(arrays))
                shape, dtype = _read_header(file, path, name)
                needed = math.prod(shape) * dtype.itemsize
                if dtype.kind not in "fiub" or needed > size - file.tell():
                    raise InputError(f"array {name} is longer than the file, or not of numbers", where=str(path))
                arrays.append(np.frombuffer(file.read(needed), dtype).reshape(shape))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path)) from error
    if len(arrays) < at_least:
        raise InputError(f"holds {len(arrays)} arrays, but the model has {at_least}", where=str(path))
    return arrays


def _read(file: BinaryIO, path: Path, name: str, leaf: Any) -> Any:
    if not eqx.is_array(leaf):
        return leaf
    shape, dtype = _read_header(file, path, name)
    if shape != leaf.shape or dtype != leaf.dtype:
        raise InputError(
            f"array {name} is {dtype}{list(shape)}, but the model needs {leaf.dtype}{list(leaf.shape)}", where=str(path)
        )
    size = dtype.itemsize * leaf.size
    content = file.read(size)
    if len(content) < size:
        raise InputError(f"ends in the middle of array {name}", where=str(path))
    array: Shaped[np.ndarray, "..."] = np.frombuffer(content, dtype).reshape(shape)
    return jnp.asarray(array)


def _read_header(file: BinaryIO, path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    try:
        shape, fortran_order, dtype = npy_header(file)
    except ValueError as error:
        raise InputError(f"is damaged at array {name}: no .npy header", where=str(path)) from error
    if fortran_order and len(shape) > 1:
        raise InputError(f"array {name} is stored column by column, which dpmed never does", where=str(path))
    return shape, dtype
