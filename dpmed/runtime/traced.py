"""Keeps functions as JAX describes them to the compiler, so that the next run need not trace them anew.

Tracing a step in Python takes longer than finding its compiled program. What is kept is JAX's own portable format
(`jax.export`): a program in StableHLO, without data, to which nothing is unpickled. It lies beside the compiled
programs, in a folder of the owner alone (`dpmed.runtime.programs`).

A wrong program would be worse than a slow start. A name is therefore a digest of all that decides a program: dpmed's
own source, the versions of what it builds upon, JAX's settings and devices, the function with everything that it holds
(`dpmed.runtime.likeness`), and the shapes and types of its arguments. Where one of these cannot be told, as with a
network of the user's own, nothing is kept. A file carries a digest of its content, and a damaged one is ignored.
"""

import contextlib
import hashlib
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from dpmed.runtime.likeness import likeness
from dpmed.runtime.programs import folder_in_use

_FOLDER, _ENDING = "traced", ".stablehlo"
_BUILT_UPON = ("jax", "jaxlib", "equinox", "optax", "numpy", "jaxtyping")
_MOST_FILES, _LARGEST_BYTES = 200, 64 << 20
_DIGEST_BYTES = 32
# Settings of JAX that concern files and messages, not programs.
_OUTWARD = ("cache", "log", "dump", "traceback", "profil")

Structure = Callable[..., Any]


def through_store(function: Callable[..., Any], structure: Structure, arguments: Sequence[Any]) -> Any:
    """Within a function that JAX traces: the results of `function`, by its kept description if there is one.

    Args:
        function: a function of arrays.
        structure: for the same arguments, a tree with the structure of the results.
        arguments: what JAX traces with.
    """
    folder = _folder()
    name = None if folder is None else _name(function, arguments)
    if folder is None or name is None:
        return function(*arguments)
    path = folder / _FOLDER / (name + _ENDING)
    kept = _read(path)
    is_new = kept is None
    if kept is None:
        kept = _describe(function, structure, arguments)
    if kept is None:
        return function(*arguments)
    # The first run too computes what later ones will.
    exported, leaves = jax.export.deserialize(bytearray(kept)), jax.tree.leaves(arguments)
    expected: Any = jax.tree.structure(structure(*arguments))
    if not _takes(exported, leaves) or len(exported.out_avals) != expected.num_leaves:
        return function(*arguments)
    if is_new:
        _write(path, kept)
    return jax.tree.unflatten(expected, exported.call(*leaves))  # type: ignore[no-untyped-call] # jax gives it no types


def settled(tree: Any) -> Any:
    """Arrays placed as the results of kept programs are, so that the first step runs the same program as all others.

    JAX binds what such a program returns to its device. Arrays that are not bound yet would be another kind of
    argument, for which every program would be compiled a second time.
    """
    return tree if _folder() is None else jax.device_put(tree, jax.devices()[0])


def _folder() -> Path | None:
    # Several devices put their own layout into a program, which JAX's format would fix; GPUs have not been tried.
    folder = folder_in_use()
    return folder if folder is not None and jax.default_backend() == "cpu" and jax.device_count() == 1 else None


def _takes(exported: Any, leaves: Sequence[Any]) -> bool:
    taken = [(one.shape, one.dtype) for one in exported.in_avals]
    return taken == [(leaf.shape, leaf.dtype) for leaf in leaves]


def _name(function: Callable[..., Any], arguments: Sequence[Any]) -> str | None:
    leaves, tree = jax.tree.flatten(tuple(arguments))
    made_of = likeness(function)
    if made_of is None or any(leaf.weak_type for leaf in leaves):
        return None
    shapes = [f"{leaf.dtype.name}{leaf.shape}" for leaf in leaves]
    # Nodes of a tree may hold values of their own; where one is shown by its address, it is not told.
    if " at 0x" in str(tree):
        return None
    told = [_surroundings(), _settings(), made_of, str(tree), *shapes]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _describe(function: Callable[..., Any], structure: Structure, arguments: Sequence[Any]) -> bytes | None:
    """The function in JAX's format, after tracing it; None if it has no such description."""
    leaves, tree = jax.tree.flatten(tuple(arguments))
    expected: Any = jax.tree.structure(structure(*arguments))

    def flat(*values: Any) -> list[Any]:
        results = function(*jax.tree.unflatten(tree, values))
        if jax.tree.structure(results) != expected:
            raise _OtherStructureError
        found = jax.tree.leaves(results)
        if any(leaf.weak_type for leaf in found):
            raise _OtherStructureError
        return found

    # Not `jax.ShapeDtypeStruct`, which would make float32 of float64.
    shapes = [jax.core.ShapedArray(leaf.shape, leaf.dtype) for leaf in leaves]
    try:
        return bytes(jax.export.export(jax.jit(flat))(*shapes).serialize())
    except (_OtherStructureError, ValueError, NotImplementedError):
        return None


class _OtherStructureError(Exception):
    """The results are not what a description could give back."""


@cache
def _surroundings() -> str:
    """The source of dpmed and the versions of what it builds upon."""
    known = hashlib.sha256(platform.python_version().encode())
    for name in _BUILT_UPON:
        known.update(f"\n{name} {version(name)}".encode())
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        known.update(f"\n{path.relative_to(root)} {len(content)}\n".encode() + content)
    return known.hexdigest()


def _settings() -> str:
    config, device = jax.config, jax.devices()[0]
    # Read one by one, since a context may have changed some.
    told = {name: getattr(config, name, value) for name, value in config.values.items()}  # type: ignore[attr-defined]
    told |= {name: value for name, value in os.environ.items() if name.startswith(("XLA_", "JAX_"))}
    lines = [f"{name} {told[name]!r}" for name in sorted(told) if not any(word in name.lower() for word in _OUTWARD)]
    return "\n".join([*lines, device.platform, device.device_kind])


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    digest, kept = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return kept if digest == hashlib.sha256(kept).digest() else None


def _write(path: Path, kept: bytes) -> None:
    # A cache that cannot be written is no reason not to compute.
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True, mode=0o700)
        descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(kept).digest() + kept)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _forget_oldest(path.parent)


def _forget_oldest(folder: Path) -> None:
    states = sorted(((path.stat(), path) for path in folder.iterdir()), key=lambda found: found[0].st_mtime)
    files, size = len(states), sum(state.st_size for state, _ in states)
    for state, path in states:
        if files <= _MOST_FILES and size <= _LARGEST_BYTES:
            return
        path.unlink(missing_ok=True)
        files, size = files - 1, size - state.st_size
