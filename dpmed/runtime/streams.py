"""Standard streams that take whatever dpmed prints: closed ones, and those that know no Greek letters.

A service may start with closed streams. A log or a terminal may be ASCII or Windows' cp1252: there, ε becomes `epsilon`
instead of an error in the middle of a training.
"""

import codecs
import io
import os
import re
import sys
import unicodedata
from typing import TextIO

_HANDLER = "dpmed.plain"
_STANDARD = 2  # the largest descriptor of a standard stream
_WORDS = str.maketrans(
    {
        "…": "...",
        "–": "-",
        "−": "-",
        "─": "-",
        "×": "x",
        "·": "*",
        "±": "+/-",
        "≤": "<=",
        "≥": ">=",
        "≈": "~",
        "√": "sqrt ",
        "“": '"',
        "”": '"',
    }
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_POWER = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_GREEK = "GREEK SMALL LETTER "
# How Python shows bytes of a file name that are no valid text.
_FIRST_BYTE, _LAST_BYTE, _BYTES_FROM = "\udc80", "\udcff", 0xDC00


def prepare_streams() -> None:
    """Make the standard streams take all text; must come before any file is opened.

    The system gives the lowest free number to the next file that is opened. If a standard stream is closed, that file
    would receive whatever a library prints: a journal of draws, for example.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    codecs.register_error(_HANDLER, _handle)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def takes(text: str, encoding: str | None) -> bool:
    """Whether an encoding has all characters of `text`; None is what a stream in memory has, which takes all."""
    try:
        text.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def fitted(text: str, encoding: str | None) -> str:
    """`text` as a stream of this encoding shows it, for whoever counts its characters beforehand."""
    if takes(text, encoding):
        return text
    return "".join(one if takes(one, encoding) else plain(one) for one in _parts(text))


def plain(text: str) -> str:
    """`text` in ASCII: `epsilon <= 8` for `ε ≤ 8`; what has no such name becomes an escape."""
    text = _POWER.sub(lambda found: "^" + found[0].translate(_RAISED), text.translate(_WORDS))
    return "".join(one if one.isascii() else _name_of(one) for one in text)


def _name_of(character: str) -> str:
    name = unicodedata.name(character, "")
    is_plain = name.startswith(_GREEK) and name.removeprefix(_GREEK).isalpha()
    return name.removeprefix(_GREEK).lower() if is_plain else ascii(character)[1:-1]


def _parts(text: str) -> list[str]:
    """Single characters, and powers as a whole."""
    return re.findall(f"{_POWER.pattern}|.", text, re.DOTALL)


def _handle(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    first = error.object[error.start]
    if _FIRST_BYTE <= first <= _LAST_BYTE:
        return bytes([ord(first) - _BYTES_FROM]), error.start + 1
    part = _parts(error.object[error.start : error.end])[0]
    return plain(part), error.start + len(part)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
