"""All that is wrong with a table, told at once: whoever mends it wants to know more than the first mistake."""

import numpy as np
from jaxtyping import Integer

from dpmed.errors import InputError

_NAMED = 10
_REMEDY = "Mend these lines, or leave them out of the table."


class Problems:
    """Gathers what is wrong by row.

    Args:
        lines: the line of each row.
    """

    def __init__(self, lines: Integer[np.ndarray, " row"]) -> None:
        self._lines = lines
        self._found: list[tuple[int, str]] = []

    def add(self, row: int, problem: str) -> None:
        """Put a problem on record."""
        self._found.append((self.line_of(row), problem))

    def line_of(self, row: int) -> int:
        """The line that a row stands on."""
        return int(self._lines[row])

    def settle(self, where: str) -> None:
        """End the reading if anything is wrong: the first ten problems in order of lines, and how many more.

        Args:
            where: the table.

        Raises:
            InputError: something is.
        """
        found = sorted(self._found, key=lambda entry: entry[0])
        if not found:
            return
        if len(found) == 1:
            remedy = "Mend that line, or leave it out of the table."
            raise InputError(found[0][1], where=f"{where} line {found[0][0]}", remedy=remedy)
        named = "; ".join(f"line {line}: {problem}" for line, problem in found[:_NAMED])
        more = f"; and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
        raise InputError(f"{len(found):,} problems: {named}{more}", where=where, remedy=_REMEDY)
