"""Errors, phrased for users.

    DpmedError          carries where, what, why and a remedy; never shown as a traceback
    ├── InputError      wrong usage, config or input files: exit code 2
    └── RunError        something failed while running: exit code 1

Programming errors (a wrong argument between our own functions) are `ValueError` and `TypeError`.
"""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_MOST_CHARACTERS = 6000


def legible(text: str) -> str:
    """A message that may quote what others wrote, such as names in a hostile file, fit for a terminal.

    Control characters, which a terminal obeys, and what no encoding can write become escapes; the middle of what is
    longer than anybody reads is left out.
    """
    if len(text) > _MOST_CHARACTERS:
        half = _MOST_CHARACTERS // 2
        text = f"{text[:half]} … {text[-half:]}"
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


class DpmedError(Exception):
    """A message for the user, with the exit code that goes with it.

    Args:
        problem: what is wrong and why, one sentence.
        where: the file, table or option concerned; precedes the problem.
        remedy: what the user can do about it; follows the problem.
    """

    exit_code = 1

    def __init__(self, problem: str, *, where: str = "", remedy: str = "") -> None:
        """Store the three parts; `str()` joins them into one message."""
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        """The message: `where: problem. remedy`, legible whatever it quotes."""
        text = f"{self.where}: {self.problem}" if self.where else self.problem
        if self.remedy:
            text = f"{text if text.endswith(('.', '!', '?')) else text + '.'} {self.remedy}"
        return legible(text)


def install_extra(extra: str) -> str:
    """The remedy for an extra that is not installed: a call that fits a wheel and a checkout alike.

    Args:
        extra: its name, such as `dicom`.
    """
    # The very interpreter that runs dpmed: `pip` on the path may be another's.
    return f"Install it by: {shlex.quote(sys.executable)} -m pip install 'dpmed[{extra}]'"


@contextmanager
def renaming(**fields: str) -> Iterator[None]:
    """A context in which an error about one of our own fields names the field that the caller knows.

    Args:
        fields: the caller's name for each of ours, such as `delta="privacy.delta"`.
    """
    try:
        yield
    except DpmedError as error:
        error.where = ", ".join(fields.get(part, part) for part in error.where.split(", "))
        raise


class InputError(DpmedError):
    """Wrong usage, configuration or input: the user can correct it and try again."""

    exit_code = 2


class RunError(DpmedError):
    """The input was fine, but the work could not be finished."""

    exit_code = 1
