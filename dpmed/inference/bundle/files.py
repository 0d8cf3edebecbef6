"""Bundles: a model in a folder that may leave the institution where it was trained.

`model.safetensors` (weights), `model.json` (what they are), `privacy.json` (what the training promises),
`MODEL_CARD.md` (what a reader should know) and `checksums.sha256`; on request also `model.onnx` or `model.stablehlo`.
Reading a bundle runs no code from it: nothing is unpickled, every hash is checked before a file is parsed, and the
sizes declared in the header of the weights are checked against the network's own before anything is allocated. The
hashes detect damage; anyone who can change a file can also change its hash, so they do not prove who made the bundle.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from dpmed.errors import InputError
from dpmed.files import digest_of, to_json, write_bytes, write_text
from dpmed.inference.description import MAX_JSON_BYTES, MODEL_FILE, ModelDescription, parse_description
from dpmed.inference.ledger import LEDGER_FILE, ReadLedger, parse_ledger
from dpmed.inference.network import Arrays, Network, eqx_digest, named_arrays, named_shapes, shapes_of, with_arrays

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "MODEL_CARD.md"
CHECKSUMS_FILE = "checksums.sha256"
NEEDED = (WEIGHTS_FILE, MODEL_FILE, LEDGER_FILE, CARD_FILE)
_MAX_CHECKSUM_BYTES = 1 << 16
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([A-Za-z0-9][A-Za-z0-9._-]{0,99})")
_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "I64": "int64", "I32": "int32", "U8": "uint8"}
_TYPES |= {"U32": "uint32", "BOOL": "bool", "I8": "int8", "I16": "int16", "U16": "uint16", "U64": "uint64"}


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredModel:
    """A trained model as stored in a run folder or a bundle.

    Attributes:
        source: the folder.
        description: what it is.
        ledger: what its training promises.
        network: the network with its weights.
    """

    source: Path
    description: ModelDescription
    ledger: ReadLedger
    network: Network


def is_bundle(folder: Path) -> bool:
    """Whether a folder claims to be a bundle."""
    return (folder / CHECKSUMS_FILE).is_file()


def write_bundle(
    folder: Path,
    *,
    description: ModelDescription,
    network: Network,
    ledger: bytes,
    card: str,
    more: Mapping[str, bytes] | None = None,
) -> None:
    """Write a bundle into an empty folder; the checksums are written last, so an incomplete bundle is invalid.

    Args:
        folder: the folder, made by the caller.
        description: description of the model.
        network: the network with its weights.
        ledger: the content of the run's `privacy.json`, byte for byte.
        card: the text of `MODEL_CARD.md`.
        more: additional files, such as `model.onnx`.

    Raises:
        RunError: the files cannot be written.
    """
    # Row-major memory, as in NumPy; the library sorts by type and name.
    arrays = {name: np.asarray(array, order="C") for name, array in named_arrays(network).items()}
    write_bytes(folder / WEIGHTS_FILE, save(arrays, {"format": "dpmed"}))
    write_text(folder / MODEL_FILE, to_json(description.to_json()))
    write_bytes(folder / LEDGER_FILE, ledger)
    write_text(folder / CARD_FILE, card)
    for name, content in (more or {}).items():
        write_bytes(folder / name, content)
    lines = [f"{digest_of(folder / name)}  {name}\n" for name in sorted((*NEEDED, *(more or {})))]
    write_text(folder / CHECKSUMS_FILE, "".join(lines))


def read_bundle(folder: Path) -> StoredModel:
    """Read a bundle from an untrusted source.

    Raises:
        InputError: a file is missing, damaged, changed or outside the folder, or files do not belong together.
    """
    contents = _read_checked(folder)
    description = parse_description(contents[MODEL_FILE], where=str(folder / MODEL_FILE))
    if description.architecture.name == "custom":
        raise InputError(
            "its network is made by code that the bundle names, and reading a bundle runs no code",
            where=str(folder / MODEL_FILE),
            remedy="Use model.onnx, or the run folder.",
        )
    ledger = parse_ledger(contents[LEDGER_FILE], where=str(folder / LEDGER_FILE))
    empty = shapes_of(description, where=str(folder / MODEL_FILE))
    arrays = _read_weights(folder / WEIGHTS_FILE, named_shapes(empty))
    if ledger.model_sha256 != eqx_digest(arrays):
        raise InputError(
            f"belongs to other weights than {WEIGHTS_FILE}: their SHA-256 is not the one that it names",
            where=str(folder / LEDGER_FILE),
        )
    return StoredModel(source=folder, description=description, ledger=ledger, network=with_arrays(empty, arrays))


def _read_checked(folder: Path) -> dict[str, bytes]:
    """The small files of the bundle, after every hash has been checked."""
    sums = _read_sums(folder / CHECKSUMS_FILE)
    missing = [name for name in NEEDED if name not in sums]
    if missing:
        raise InputError(f"does not list {', '.join(missing)}", where=str(folder / CHECKSUMS_FILE))
    contents = {}
    for name, stated in sums.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            problem = (
                "is a link, which a bundle must not contain" if path.is_symlink() else "is missing from the bundle"
            )
            raise InputError(problem, where=str(path))
        if name in (MODEL_FILE, LEDGER_FILE):
            if path.stat().st_size > 4 * MAX_JSON_BYTES:
                raise InputError("is far larger than such a file can be", where=str(path))
            contents[name] = path.read_bytes()
        if digest_of(path) != stated:
            remedy = "Get the bundle again from its maker."
            raise InputError(
                f"was damaged or changed: its SHA-256 is not that of {CHECKSUMS_FILE}", where=str(path), remedy=remedy
            )
    return contents


def _read_sums(path: Path) -> dict[str, str]:
    try:
        if path.is_symlink() or path.stat().st_size > _MAX_CHECKSUM_BYTES:
            raise InputError("is a link or too large to be a list of checksums", where=str(path))
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path)) from error
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise InputError(
                f"line {number} is not a SHA-256, two spaces and the name of a file in this folder", where=str(path)
            )
        if match[2] in sums or match[2] == CHECKSUMS_FILE:
            raise InputError(f"line {number} names {match[2]} once more, or itself", where=str(path))
        sums[match[2]] = match[1]
    return sums


def _read_weights(path: Path, wanted: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> Arrays:
    """Exactly the arrays that the network needs; shapes and types are compared before any is read."""
    where = str(path)
    try:
        with safe_open(path, framework="numpy") as file:
            found = {name: _declared(file.get_slice(name)) for name in file.keys()}
            for name, facts in wanted.items():
                if found.get(name) != facts:
                    has = _say(found[name]) if name in found else "nothing"
                    raise InputError(f"has {has} for the array {name!r}, but {_say(facts)} is needed", where=where)
            others = sorted(found.keys() - wanted.keys())
            if others:
                raise InputError(f"holds an array {others[0]!r} that the model does not have", where=where)
            arrays: Arrays = {name: file.get_tensor(name) for name in wanted}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise InputError(f"is not a readable safetensors file ({error})", where=where) from error
    _check_finite(arrays, where)
    return arrays


def _declared(part: Any) -> tuple[tuple[int, ...], np.dtype | None]:
    kind = _TYPES.get(part.get_dtype())
    return tuple(part.get_shape()), None if kind is None else np.dtype(kind)


def _say(facts: tuple[tuple[int, ...], np.dtype | None]) -> str:
    shape, dtype = facts
    return f"{dtype or 'an unknown type'}{list(shape)}"


def _check_finite(arrays: Arrays, where: str) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"array {name!r} holds values that are not finite", where=where)
