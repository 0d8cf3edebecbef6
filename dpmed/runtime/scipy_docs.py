"""Imports SciPy without rewriting its documentation, which is a third of the time that these imports take."""

import importlib
from typing import Any


def leave_docstrings() -> bool:
    """Let SciPy's functions keep the docstrings that they were written with.

    At import, SciPy parses the docstrings of some 800 functions, to insert a note about array libraries into each. No
    command shows them. Only for processes of the command line: who imports dpmed as a library may want to read them.
    Nothing that SciPy computes depends on it. Must be called before SciPy's parts are imported.

    Returns:
        Whether SciPy has the private class that does this; if not, nothing changes.
    """
    try:
        parser: Any = importlib.import_module("scipy._lib._docscrape")
    except ImportError:
        return False
    if not hasattr(parser, "FunctionDoc"):
        return False
    parser.FunctionDoc = _Unparsed
    return True


class _Unparsed:
    """Stands for a parsed docstring, and gives it back as it was."""

    def __init__(self, function: Any, *_: Any, **__: Any) -> None:
        self._text = getattr(function, "__doc__", None) or ""

    def __getitem__(self, section: str) -> list[Any]:
        return []

    def __setitem__(self, section: str, content: Any) -> None:
        """Keep nothing."""

    def __str__(self) -> str:
        # SciPy drops the first line, where a parsed docstring has the signature.
        return "\n" + self._text
