"""Reports all errors in a table at once, since anyone fixing it wants to know more than the first."""

import numpy as np
from jaxtyping import Integer

from dpmed.errors import InputError

_NAMED = 10
_REMEDY = "Correct these lines, or remove them from the table."


class Problems:
    """Collects problems by row.

    Args:
        lines: the line of each row.
    """

    def __init__(self, lines: Integer[np.ndarray, " row"]) -> None:
        self._lines = lines
        self._found: list[tuple[int, str]] = []

    def add(self, row: int, problem: str) -> None:
        """Record a problem."""
        self._found.append((self.line_of(row), problem))

    def line_of(self, row: int) -> int:
        """The line number of a row."""
        return int(self._lines[row])

    def settle(self, where: str) -> None:
        """Raise an error if there are problems: the first ten in order of lines, and how many more.

        Args:
            where: the table.

        Raises:
            InputError: there are problems.
        """
        found = sorted(self._found, key=lambda entry: entry[0])
        if not found:
            return
        if len(found) == 1:
            remedy = "Correct that line, or remove it from the table."
            raise InputError(found[0][1], where=f"{where} line {found[0][0]}", remedy=remedy)
        named = "; ".join(f"line {line}: {problem}" for line, problem in found[:_NAMED])
        more = f"; and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
        raise InputError(f"{len(found):,} problems: {named}{more}", where=where, remedy=_REMEDY)
