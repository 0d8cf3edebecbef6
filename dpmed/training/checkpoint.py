"""Checkpoints that are complete, belong to their run, and hold no secrets of a release run.

A checkpoint is one file: a line that names the format, a line of JSON, then the raw bytes of every array in the order
of the tree. Reading never executes anything and allocates only what the run's own model needs: shapes and types come
from that model, and the file must match them to the byte. Every field of the JSON is checked.

A release run stores neither keys nor batches. A seeded run only needs to store its step: noise and batches are
functions of seed and step.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from dpmed.errors import InputError
from dpmed.fields import explain
from dpmed.files import FILE_MODE, remove_if_possible, write_at, write_atomically, writing_to

# The folder of a run that holds them, and its journal of draws.
CHECKPOINTS = "checkpoints"
_MAGIC = b"dpmed checkpoint 1\n"
_MAX_HEADER_BYTES = 64 << 20
_KEPT = 2
_SLOT_BYTES = 32
_STRICT = ConfigDict(strict=True)
_MOST = 1 << 63


_NUMBER: tuple[type, ...] = (int, float)
_IN_ROWS: Mapping[str, tuple[type, ...]] = {"epoch": _NUMBER, "step": (int,), "split": (str,)}
_SPLITS = ("train", "validation")


def _checked_row(row: Mapping[str, Any]) -> Mapping[str, Any]:
    missing = {*_IN_ROWS, "epsilon"} - row.keys()
    if missing:
        raise ValueError(f"lacks {', '.join(sorted(missing))}")
    for name, value in row.items():
        is_known = isinstance(value, _IN_ROWS.get(name, (*_NUMBER, type(None)))) and not isinstance(value, bool)
        if not is_known or (isinstance(value, int) and abs(value) >= _MOST):
            raise ValueError(f"has no valid {name!r:.40}")
    if row["split"] not in _SPLITS:
        raise ValueError("has no valid 'split'")
    return row


Count = Annotated[int, Field(ge=0, lt=_MOST)]
Row = Annotated[Mapping[str, Any], AfterValidator(_checked_row)]


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run has come.

    Attributes:
        config_digest: SHA-256 of the run's config.toml.
        step: updates of the weights so far.
        draws: draws of noise and batches so far, including repeated ones.
        microbatch: records per microbatch, which affects rounding.
        method: how per-sample gradients are computed, which affects it too.
        seconds: time spent training so far.
        records: records processed so far.
        rows: the rows of metrics.csv so far.
        losses: sums since the last row of loss, records, rejected and clipped.
        watched: what early stopping and plateau schedules remember, as plain numbers.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    config_digest: str
    step: Count
    draws: Count
    microbatch: Annotated[Count, Field(ge=1)]
    method: str
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    records: Count
    rows: tuple[Row, ...]
    # The loss is NaN or infinite where the training's was.
    losses: tuple[float, Count, Count, Count]
    watched: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.draws < self.step:
            raise ValueError(f"has {self.step} steps of {self.draws} draws")


@dataclass(frozen=True, kw_only=True)
class _Header:
    """The line of JSON: the position, and length and SHA-256 of all arrays together."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    position: Position
    sha256: str
    bytes: Count


_HEADER = TypeAdapter(_Header)


def save_checkpoint(folder: Path, position: Position, tree: PyTree) -> Path:
    """Write a checkpoint, completely or not at all, and remove all but the last two.

    Args:
        folder: the run's `checkpoints`.
        position: how far the run has come.
        tree: all arrays that a resumed run needs.

    Raises:
        RunError: the disk is full; earlier checkpoints are untouched.
    """
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    header = {
        # Without `asdict`, which would copy every row of a long run each time.
        "position": {field.name: getattr(position, field.name) for field in fields(Position)},
        "sha256": digest.hexdigest(),
        "bytes": sum(array.nbytes for array in arrays),
    }

    def write(file: BinaryIO) -> None:
        file.write(_MAGIC + json.dumps(header).encode() + b"\n")
        for array in arrays:
            file.write(np.ascontiguousarray(array).data)

    path = folder / f"step-{position.step:08d}-{position.draws:08d}.ckpt"
    write_atomically(path, write)
    for old in list_checkpoints(folder)[_KEPT:]:
        remove_if_possible(old)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    return sorted(folder.glob("step-*.ckpt"), reverse=True)


def read_position(path: Path, *, config_digest: str) -> Position:
    """How far the checkpoint's run had come.

    Raises:
        InputError: the file is truncated, is not a checkpoint, or belongs to a run with another config.
    """
    with _open(path) as file:
        return _read_header(file, path, config_digest).position


def load_checkpoint(path: Path, like: PyTree, *, config_digest: str) -> tuple[Position, PyTree]:
    """A checkpoint's position and arrays.

    Args:
        path: the file.
        like: a tree that the run itself has built; structure, shapes and types are taken from it.
        config_digest: SHA-256 of the run's config.toml.

    Raises:
        InputError: the file is truncated, damaged, not a checkpoint, or belongs to another run.
    """
    leaves, structure = jax.tree.flatten(like)
    expected = sum(np.dtype(leaf.dtype).itemsize * leaf.size for leaf in leaves)
    with _open(path) as file:
        header = _read_header(file, path, config_digest)
        remaining = os.fstat(file.fileno()).st_size - file.tell()
        if remaining != expected or header.bytes != expected:
            raise _damaged(path, f"it holds {remaining} bytes of arrays, but the model needs {expected}")
        content = file.read(expected)
    if hashlib.sha256(content).hexdigest() != header.sha256:
        raise _damaged(path, "its checksum does not match")
    arrays, start = [], 0
    for leaf in leaves:
        array = np.frombuffer(content, leaf.dtype, count=leaf.size, offset=start).reshape(leaf.shape)
        start += array.nbytes
        # Copied: a step donates its buffers, and these bytes must not be given away.
        arrays.append(jnp.array(array))
    return header.position, jax.tree.unflatten(structure, arrays)


class DrawJournal:
    """Counts the draws of a release run on disk, each before it is made, so that no draw is lost in a crash.

    Two slots are written in turn, each with a checksum: a write that a crash interrupts leaves the other slot
    unchanged, and a file that was emptied or overwritten is recognised.

    Args:
        path: the journal's file; if missing, it is created and counting starts at 0.

    Raises:
        RunError: it cannot be created or read.

    Attributes:
        draws: draws on record; 0 if nothing can be read.
        damage: a description of what is wrong with the file; None if nothing is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        is_new = not path.exists()
        with writing_to(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE)
            content = os.pread(self._descriptor, 2 * _SLOT_BYTES, 0)
        known = _draws_in(content)
        self.draws = max(known, default=0)
        self.damage: str | None = None
        if is_new:
            self.begin(0)
        elif not known:
            self.damage = "is damaged" if content else "is empty"

    def begin(self, draws: int) -> None:
        """Record that `draws` draws have begun, and wait until this is on disk.

        Raises:
            RunError: it cannot be written to disk: the draw must not be made.
        """
        self.draws = max(self.draws, draws)
        number = f"{self.draws:020d}"
        slot = f"{number} {zlib.crc32(number.encode()):08x}\n".ljust(_SLOT_BYTES).encode()
        with writing_to(self._path):
            write_at(self._descriptor, slot, _SLOT_BYTES * (self.draws % 2))
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _draws_in(content: bytes) -> list[int]:
    """The numbers in those slots that are intact."""
    if content.strip().isdigit():
        # The format of dpmed 0.1.0: a number without a checksum.
        return [int(content)]
    found = []
    for start in (0, _SLOT_BYTES):
        number, _, checksum = content[start : start + _SLOT_BYTES].strip().partition(b" ")
        if number.isdigit() and checksum == b"%08x" % zlib.crc32(number):
            found.append(int(number))
    return found


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from error


def _read_header(file: BinaryIO, path: Path, config_digest: str) -> _Header:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise _damaged(path, "it does not start like a checkpoint")
    try:
        found = _HEADER.validate_json(file.readline(_MAX_HEADER_BYTES))
    except ValidationError as error:
        field, problem = explain(error)
        raise _damaged(path, f"in its header, {field} {problem}" if field else "its header cannot be read") from error
    if found.position.config_digest != config_digest:
        remedy = "Restore that run's config.toml, or remove the checkpoint."
        raise InputError("belongs to a run with another config", where=str(path), remedy=remedy)
    return found


def _damaged(path: Path, reason: str) -> InputError:
    remedy = "Remove this file to resume from the previous checkpoint."
    return InputError(f"is truncated or damaged: {reason}", where=str(path), remedy=remedy)
