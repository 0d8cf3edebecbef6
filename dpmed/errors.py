"""Errors, phrased for users.

    DpmedError          carries where, what, why and a remedy; never shown as a traceback
    ├── InputError      wrong usage, config or input files: exit code 2
    └── RunError        something failed while running: exit code 1

Programming errors (a wrong argument between our own functions) are `ValueError` and `TypeError`.
"""

from collections.abc import Iterator
from contextlib import contextmanager


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
        """The message: `where: problem. remedy`."""
        text = f"{self.where}: {self.problem}" if self.where else self.problem
        if not self.remedy:
            return text
        return f"{text if text.endswith(('.', '!', '?')) else text + '.'} {self.remedy}"


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
