"""Imports SciPy and Matplotlib without rewriting their documentation, which is a third of the time that this takes.

No command shows it. Only for processes of the command line: who imports dpmed as a library may want to read it. Nothing
that is computed or drawn depends on it.
"""

import importlib
from typing import Any

_left = False


def leave_docstrings() -> bool:
    """Let the functions of both libraries keep the docstrings that they were written with.

    At import, SciPy parses the docstrings of some 800 functions, to insert a note about array libraries into each, and
    fills in those of its distributions. Must be called before SciPy's parts are imported.

    Returns:
        Whether SciPy has the private names that do this; if not, nothing changes.
    """
    global _left  # noqa: PLW0603 Matplotlib is imported later or not at all, and then asks what was decided here
    _left = True
    try:
        parser: Any = importlib.import_module("scipy._lib._docscrape")
        filler: Any = importlib.import_module("scipy._lib.doccer")
    except ImportError:
        return False
    if not hasattr(parser, "FunctionDoc") or not hasattr(filler, "docformat"):
        return False
    parser.FunctionDoc = _Unparsed
    filler.docformat = _unfilled
    return True


def leave_artists() -> bool:
    """Let Matplotlib's artists go without lists of their properties, if `leave_docstrings` has been called.

    At import, Matplotlib finds these lists for some 110 classes. Must be called before its parts are imported.

    Returns:
        Whether they are left out.
    """
    if not _left:
        return False
    artist: Any = importlib.import_module("matplotlib.artist")
    if not hasattr(artist, "kwdoc"):
        return False
    artist.kwdoc = _nothing
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


def _unfilled(docstring: Any, *_: Any, **__: Any) -> Any:
    return docstring


def _nothing(*_: Any) -> str:
    return ""
