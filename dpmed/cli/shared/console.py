"""All output of a command: rich on a terminal, plain lines elsewhere, one JSON object with --json.

Results go to standard output, progress and errors to standard error, so a pipe receives only results.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from json import dumps, loads
from pathlib import Path
from typing import Any

from dpmed.errors import DpmedError, RunError, legible
from dpmed.files import to_json
from dpmed.progress import Silent, Task
from dpmed.runtime.streams import fitted, takes

_SECONDS_BETWEEN_LINES = 5.0
_NO_END = 10_000
_NARROWEST_BAR = 6


class Console:
    """Prints everything that a command has to say, and serves as its `Progress`.

    Args:
        quiet: no plan, remarks or progress; only results, errors and the last line.
        debug: tracebacks for every error.
    """

    def __init__(self, *, quiet: bool = False, debug: bool = False) -> None:
        self.quiet = quiet
        self.debug = debug
        self.json = False
        self._speaker = "dpmed"

    def mute(self, process: int) -> None:
        """Of several processes only the first reports results and progress; the others report errors alone."""
        self._speaker = "dpmed" if process == 0 else f"dpmed (process {process})"
        self.quiet = self.quiet or process > 0

    @property
    def silent(self) -> bool:
        """Whether results in text form are left out."""
        return self.json or self._speaker != "dpmed"

    def say(self, message: str) -> None:
        """A remark about work in progress, on standard error."""
        if not self.quiet:
            _remark(legible(message))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table of results on standard output; the first column is left-aligned, the others right-aligned.

        Words and numbers are never broken: in a pipe lines are as long as they need to be, and on a terminal too narrow
        for the table each row becomes a block of names and values.
        """
        if self.silent:
            return
        from rich.box import SIMPLE_HEAD
        from rich.measure import Measurement
        from rich.table import Table

        table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        columns = [fitted(column, sys.stdout.encoding) for column in columns]
        rows = [[fitted(cell, sys.stdout.encoding) for cell in row] for row in rows]
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        out = _rich(stderr=False)
        if Measurement.get(out, out.options.update(max_width=_NO_END), table).maximum <= out.width:
            _print(out, table)
            return
        for row in rows:
            # Pairs rather than a dictionary, since two columns may share a name; empty cells are left out.
            pairs = [(name, cell) for name, cell in zip(columns[1:], row[1:], strict=True) if cell]
            self._pairs(f"{title}: {columns[0]} {row[0]}", pairs)

    def facts(self, title: str, facts: Mapping[str, str]) -> None:
        """Names and values, one per line, on standard output; on a terminal, long values wrap within their column."""
        if not self.silent:
            self._pairs(title, list(facts.items()))

    def _pairs(self, title: str, pairs: Sequence[tuple[str, str]]) -> None:
        from rich.table import Table

        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in pairs:
            grid.add_row(f"  {fitted(name, sys.stdout.encoding)}", fitted(value, sys.stdout.encoding))
        out = _rich(stderr=False)
        with _printing():
            out.print(title, style="bold")
        _print(out, grid)

    def plan(self, title: str, facts: Mapping[str, str]) -> None:
        """What is about to be done; omitted when quiet."""
        if not self.quiet:
            self.facts(title, facts)

    def text(self, message: str) -> None:
        """A result in words, on standard output."""
        if not self.silent:
            with _printing():
                print(message, flush=True)

    def result(self, summary: Mapping[str, Any], written: Path | None) -> None:
        """The end of a command: its summary with --json, otherwise the line that names what was written."""
        if not self.json:
            text = None if written is None else str(written)
        elif not takes(text := to_json(summary).rstrip("\n"), sys.stdout.encoding):
            text = dumps(loads(text), indent=2)  # in ASCII, with the escapes of JSON
        if text is not None:
            with _printing():
                print(text, flush=True)

    def error(self, error: DpmedError) -> None:
        """One message for the user, on standard error."""
        _remark(f"{self._speaker}: {error}")

    def task(self, name: str, *, total: int | None, unit: str = "", done: int = 0) -> AbstractContextManager[Task]:
        """Progress of one piece of work: a bar on a terminal, otherwise a line every few seconds."""
        if self.quiet:
            return Silent().task(name, total=total, unit=unit, done=done)
        if sys.stderr.isatty():
            return _bar(name, total, unit, done)
        return _lines(name, total, unit, done)


def unprinted(error: OSError) -> RunError:
    """What is to be said where standard output takes no more, such as a file on a full disk."""
    problem = f"could not be written ({error.strerror or error})"
    return RunError(problem, where="standard output", remedy="Files that were written before are whole.")


@contextmanager
def _printing() -> Iterator[None]:
    """A context in which results are printed.

    Raises:
        RunError: they cannot be.
        BrokenPipeError: nobody reads them any more.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unprinted(error) from error


def _remark(text: str) -> None:
    """Print to standard error; a log on a full disk, or a terminal that is gone, ends no training."""
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        pass


def _rich(*, stderr: bool) -> Any:
    from rich.console import Console as RichConsole

    stream = sys.stderr if stderr else sys.stdout
    # Without a terminal rich would wrap at 80 columns; lines in a pipe or a log file stay whole.
    return RichConsole(stderr=stderr, width=None if stream.isatty() else _NO_END, highlight=False, markup=False)


def _print(out: Any, what: Any) -> None:
    """Print a table; in a pipe or a file, without trailing blanks."""
    with _printing():
        if out.is_terminal:
            out.print(what)
            return
        with out.capture() as captured:
            out.print(what)
        print("\n".join(line.rstrip() for line in captured.get().splitlines()), flush=True)


@contextmanager
def _bar(name: str, total: int | None, unit: str, done: int) -> Iterator[Task]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    # No markup: names and notes may come from files.
    text = TextColumn("{task.description}", markup=False)
    note = TextColumn("{task.fields[note]}", markup=False)
    # On a narrow terminal the bar alone shrinks.
    count, left = (column(table_column=Column(no_wrap=True)) for column in (MofNCompleteColumn, TimeRemainingColumn))
    columns = [text, BarColumn(), count, TextColumn(unit, markup=False), left, note]
    progress = Progress(*columns, console=_rich(stderr=True), transient=True)
    number = progress.add_task(name, total=total, completed=done, note="")
    taken = len(f"{name} {total}/{total} {unit} 0:00:00  ") + _NARROWEST_BAR

    class Bar:
        def advance(self, amount: int = 1, *, note: str = "") -> None:
            if note:
                progress.update(number, note=_fitting(note, progress.console.width - taken))
            progress.advance(number, amount)

    with suppress(OSError):
        progress.start()
    try:
        yield Bar()
    finally:
        # A terminal that was closed meanwhile: what was done must still be saved.
        with suppress(OSError):
            progress.stop()


def _fitting(note: str, room: int) -> str:
    """The first parts of a note, separated by commas, that fit into so many columns: no number is cut off."""
    kept = ""
    for part in note.split(", "):
        longer = f"{kept}, {part}" if kept else part
        if len(longer) > room:
            break
        kept = longer
    return kept


class _Lines:
    def __init__(self, name: str, total: int | None, unit: str, done: int) -> None:
        self.name, self.total, self.unit, self.done, self.begun_at = name, total, unit, done, done
        self.begun = self.last = time.monotonic()
        self.printed = False

    def advance(self, amount: int = 1, *, note: str = "") -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.last >= _SECONDS_BETWEEN_LINES:
            self.last = now
            self.show(note)

    def show(self, note: str) -> None:
        elapsed = time.monotonic() - self.begun
        parts = [f"{self.name}: {self.done}" + (f"/{self.total}" if self.total else "") + f" {self.unit}".rstrip()]
        if self.total and self.done > self.begun_at:
            left = elapsed * (self.total - self.done) / (self.done - self.begun_at)
            parts.append(f"{left:.0f} s left")
        parts += [note] if note else []
        _remark(", ".join(parts))


@contextmanager
def _lines(name: str, total: int | None, unit: str, done: int) -> Iterator[Task]:
    yield _Lines(name, total, unit, done)
