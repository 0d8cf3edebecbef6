"""Users' own functions, named in a config as `package.module:function`.

A config may come from somebody else, and a data folder contains files written by others. A module is therefore searched
only on the Python path, as set by PYTHONPATH and the installation: never in the current folder just because a command
runs there (which `python -m dpmed` would do), and never below a data folder. The ledger describes exactly what was
imported: module, version and a digest of its source.
"""

import contextlib
import difflib
import hashlib
import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any

from dpmed.errors import InputError

_REMEDY = (
    "Install the package, or add its folder to PYTHONPATH: neither the current folder nor a data folder is searched."
)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An imported function and its description.

    Attributes:
        name: `package.module:function`.
        function: the function itself.
        where: the key that named it, for messages.
        module: its module's name.
        version: version of the installed distribution that contains it; None if there is none.
        digest: SHA-256 of the module's source file, hexadecimal; empty for modules without a file.
    """

    name: str
    function: Callable[..., Any]
    where: str
    module: str
    version: str | None
    digest: str

    def describe(self) -> str:
        """A description in words: name, version and digest of the source."""
        facts = [f"version {self.version}"] if self.version is not None else []
        facts += [f"source SHA-256 {self.digest}"] if self.digest else []
        return f"{self.name} ({', '.join(facts)})" if facts else self.name

    def call(self, **arguments: Any) -> Any:
        """The function's result.

        Raises:
            InputError: it raised an error; the message says which, and on which line of the user's own file.
        """
        return guarded(lambda: self.function(**arguments), where=f"{self.where} = {self.name!r}")


def load_factory(text: str, *, where: str, not_below: Sequence[Path] = ()) -> Loaded:
    """Import a function.

    Args:
        text: `package.module:function`.
        where: the key that names it, for messages.
        not_below: data folders, below which no module is imported.

    Raises:
        InputError: there is no such module on the Python path or no such function in it, it is below a data folder, or
            it raised an error when imported.
    """
    module_name, _, name = text.partition(":")
    place = f"{where} = {text!r}"
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        # Otherwise a config could run any command, under a name that raises no suspicion.
        raise InputError("is in Python's standard library, which has no factories for dpmed", where=place)
    folders = [Path(folder).resolve() for folder in not_below]
    with _path_of_the_installation():
        module = _import(module_name, place, folders)
    function = getattr(module, name, None)
    if function is None:
        known = [entry for entry in vars(module) if not entry.startswith("_") and callable(getattr(module, entry))]
        guess = difflib.get_close_matches(name, known, n=1)
        remedy = f"Did you mean {guess[0]}?" if guess else f"It has {', '.join(sorted(known)[:10]) or 'none'}."
        raise InputError(f"the module {module_name} has no function {name!r}", where=place, remedy=remedy)
    if not callable(function):
        raise InputError(f"{name!r} is a {type(function).__name__}, not a function", where=place)
    return Loaded(
        name=text,
        function=function,
        where=where,
        module=module_name,
        version=_version(module_name),
        digest=_digest(module),
    )


def guarded(action: Callable[[], Any], *, where: str) -> Any:
    """The result of running the user's code; an error in it becomes a message with its file and line.

    Raises:
        InputError: the action raised an error.
    """
    try:
        return action()
    except InputError:
        raise
    except Exception as error:  # the user's code may raise anything
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename != __file__ and not frame.filename.startswith("<frozen")]
        line = f" at {own[-1].filename} line {own[-1].lineno}" if own else ""
        remedy = "Correct the code, or the arguments given in the config."
        raise InputError(f"raised {type(error).__name__}: {error}{line}", where=where, remedy=remedy) from error


@contextlib.contextmanager
def _path_of_the_installation() -> Iterator[None]:
    """The Python path without the current folder, unless PYTHONPATH names it or it was installed (as editable).

    Python itself adds it for `python -m`, and wherever PYTHONPATH has an empty entry.
    """
    before, here = list(sys.path), Path.cwd().resolve()
    named = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if here not in [Path(entry).resolve() for entry in named]:
        # Installed packages come after the standard library.
        library = sysconfig.get_path("stdlib")
        ahead = before.index(library) if library in before else len(before)
        sys.path[:] = [entry for place, entry in enumerate(before) if place > ahead or Path(entry).resolve() != here]
    cleaned = list(sys.path)
    try:
        yield
    finally:
        if sys.path == cleaned:
            sys.path[:] = before


def _import(name: str, place: str, folders: Sequence[Path]) -> ModuleType:
    """Import package by package, checking each before any of its code runs."""
    parts = name.split(".")
    search: Sequence[str] | None = None
    for count in range(1, len(parts) + 1):
        current = ".".join(parts[:count])
        # Built-in modules (of the standard library) have no file; they are not searched for what is not on the path.
        spec = PathFinder.find_spec(current, search)
        if spec is None:
            raise InputError(f"there is no module {current} on the Python path", where=place, remedy=_REMEDY)
        _check_place(spec, place, folders)
        module = guarded(partial(importlib.import_module, current), where=place)
        if spec.origin is not None and getattr(module, "__file__", None) not in (spec.origin, None):
            raise InputError(f"another module named {current} has already been imported", where=place)
        search = list(getattr(module, "__path__", []))
    return module  # there is at least one part


def _check_place(spec: ModuleSpec, place: str, folders: Sequence[Path]) -> None:
    locations = [
        *(spec.submodule_search_locations or []),
        *([spec.origin] if spec.has_location and spec.origin else []),
    ]
    for location in locations:
        for folder in folders:
            if Path(location).resolve().is_relative_to(folder):
                raise InputError(
                    f"{location} is in the data folder {folder}: code is never run from there",
                    where=place,
                    remedy=_REMEDY,
                )


def _version(module: str) -> str | None:
    owners: Mapping[str, list[str]] = packages_distributions()
    names = owners.get(module.partition(".")[0], [])
    return version(names[0]) if names else None


def _digest(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    if file is None:
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
