"""A digest of everything that a function is made of, so that two processes can tell whether theirs are the same.

It covers the code of a function, its defaults and the values that it has closed over, and whatever these contain in
turn. What it does not know, it refuses: a digest that leaves something out could take one program for another. Module
variables are left out, since they follow from the sources of the packages, whose versions the caller adds.
"""

import dataclasses
import enum
import functools
import hashlib
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

# Where functions and classes may come from. Those of the user's own code are refused: their source is not known.
_PACKAGES = frozenset({"dpmed", "jax", "jaxlib", "equinox", "optax", "jaxtyping", "numpy", "functools", "builtins"})
# What `jax.custom_jvp` and `jax.custom_vjp` hold beside the function.
_OF_DERIVATIVES = ("jvp", "fwd", "bwd", "nondiff_argnums", "nondiff_argnames", "symbolic_zeros", "optimize_remat")
_PLAIN = frozenset({str, bytes, int, float, complex, bool, types.NoneType, types.EllipsisType})


def likeness(value: Any) -> str | None:
    """A digest of a function or of any value that a function may hold; None if it holds something unknown."""
    try:
        return _Digests().of(value).hex()
    except (_UnknownError, RecursionError):
        return None


class _UnknownError(Exception):
    """Something of which no digest can be made."""


class _Digests:
    """Digests of objects by their content, each made once."""

    def __init__(self) -> None:
        # Objects are kept beside their digests, so that no other can get the address of one.
        self._made: dict[int, tuple[Any, bytes]] = {}
        self._within: list[int] = []

    def of(self, value: Any) -> bytes:
        """The digest of a value.

        Raises:
            _UnknownError: it holds something unknown.
        """
        if type(value) in _PLAIN:
            return hashlib.sha256(f"{type(value).__name__} {value!r}".encode()).digest()
        if id(value) in self._made:
            return self._made[id(value)][1]
        if id(value) in self._within:
            # A function may hold itself.
            return hashlib.sha256(f"level {self._within.index(id(value))}".encode()).digest()
        self._within.append(id(value))
        label, parts = _taken_apart(value)
        found = hashlib.sha256(f"{label} of {len(parts)}".encode()).digest()
        found = hashlib.sha256(found + b"".join(map(self.of, parts))).digest()
        self._within.pop()
        self._made[id(value)] = value, found
        return found


def _taken_apart(value: Any) -> tuple[str, list[Any]]:
    """What a value is, and what it consists of."""
    for kinds, take_apart in _KINDS:
        if isinstance(value, kinds):
            return take_apart(value)
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        fields = [field.name for field in dataclasses.fields(kind)]
        # A module of Equinox may lack a field; what is set beside the fields counts as well.
        state = {name: getattr(value, name) for name in fields if hasattr(value, name)} | _dictionary(value)
        return f"data {_home(kind)}", [state]
    if _top(kind) == "dpmed" and hasattr(value, "__dict__") and not _has_slots(kind):
        return f"object {_home(kind)}", [_dictionary(value)]
    if hasattr(value, "__wrapped__") and _top(kind) in ("jax", "jaxlib"):
        # A function under `jax.jit`, or with its own derivative, which is another function beside it.
        return f"wrapped {_home(kind)}", [value.__wrapped__, *(getattr(value, name, None) for name in _OF_DERIVATIVES)]
    raise _UnknownError(value)


def _parts_of_function(value: types.FunctionType) -> list[Any]:
    cells: list[Any] = []
    for cell in value.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:
            cells.append("empty")
    return [value.__code__, list(value.__defaults__ or ()), value.__kwdefaults__ or {}, cells]


def _parts_of_code(value: types.CodeType) -> list[Any]:
    names = [*value.co_names, *value.co_varnames, *value.co_freevars, *value.co_cellvars]
    return [value.co_code, value.co_firstlineno, value.co_flags, names, list(value.co_consts)]


def _array(value: Any) -> tuple[str, list[Any]]:
    # Of tracers, keys of randomness and Python's own objects, the bytes do not tell what they are.
    if isinstance(value, jax.core.Tracer) or not isinstance(value.dtype, np.dtype) or value.dtype.hasobject:
        raise _UnknownError(value)
    host = np.asarray(value)
    weak = bool(getattr(value, "weak_type", False))
    return f"array {host.dtype.name} {host.shape} {weak}", [host.tobytes()]


# In this order: an enumeration may be a string, too.
_KINDS: tuple[tuple[Any, Callable[[Any], tuple[str, list[Any]]]], ...] = (
    (type, lambda value: (f"class {_home(value)}", [])),
    (enum.Enum, lambda value: (f"enum {_home(type(value))}", [value.name])),
    (types.FunctionType, lambda value: (f"function {_home(value)}", _parts_of_function(value))),
    (types.CodeType, lambda value: (f"code {value.co_name}", _parts_of_code(value))),
    (types.MethodType, lambda value: ("method", [value.__func__, value.__self__])),
    (functools.partial, lambda value: ("partial", [value.func, list(value.args), value.keywords])),
    ((np.ndarray, np.generic, jax.Array), _array),
    (np.dtype, lambda value: (f"dtype {value.name}", [])),
    (Mapping, lambda value: (f"mapping {_home(type(value))}", [part for item in value.items() for part in item])),
    ((list, tuple), lambda value: (f"sequence {_home(type(value))}", list(value))),
    ((types.BuiltinFunctionType, np.ufunc), lambda value: (f"builtin {_home(value)}", [])),
)


def _dictionary(value: Any) -> dict[str, Any]:
    return dict(getattr(value, "__dict__", {}))


def _has_slots(kind: type) -> bool:
    """Whether attributes lie outside of `__dict__`; pydantic has slots for its own book-keeping."""
    return any(not name.startswith("__") for one in kind.__mro__ for name in getattr(one, "__slots__", ()))


def _home(value: Any) -> str:
    if _top(value) not in _PACKAGES:
        raise _UnknownError(value)
    return f"{value.__module__}.{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"


def _top(value: Any) -> str:
    return str(getattr(value, "__module__", None) or "").partition(".")[0]
