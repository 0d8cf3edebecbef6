"""How any package reports progress without depending on a terminal.

Functions that can take more than two seconds accept a `Progress`. The command line passes one that draws; libraries and
tests pass `Silent`. As with the progress meters of diffrax, the computation reports and the caller displays.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable


@runtime_checkable
class Task(Protocol):
    """A piece of work in progress."""

    def advance(self, amount: int = 1, *, note: str = "") -> None:
        """`amount` more units are done; `note` is a short live remark such as `loss 0.41, ε 3.2`."""
        ...


@runtime_checkable
class Progress(Protocol):
    """Shows the pieces of work of a command."""

    def task(self, name: str, *, total: int | None, unit: str = "", done: int = 0) -> AbstractContextManager[Task]:
        """Begin work of `total` units (None: unknown), `done` of them already done; leaving the context ends it."""
        ...

    def say(self, message: str) -> None:
        """Show a message to the user, above whatever is being drawn."""
        ...


class Silent:
    """Reports nothing: for tests, libraries and `--quiet`."""

    def task(self, name: str, *, total: int | None, unit: str = "", done: int = 0) -> AbstractContextManager[Task]:
        """A task that shows nothing."""
        del name, total, unit, done
        return _silent_task()

    def say(self, message: str) -> None:
        """Says nothing."""
        del message


class _SilentTask:
    def advance(self, amount: int = 1, *, note: str = "") -> None:
        del amount, note


@contextmanager
def _silent_task() -> Iterator[Task]:
    yield _SilentTask()
