"""The worked story, told by its page: `python -m tests.story build/story` writes its files and calls its commands.

`docs/story.md` is the only place where they stand. Each command is a process of its own, as for its reader.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import split

from tests.reader import blocks_of

PAGE = "docs/story.md"
Run = Callable[[Sequence[str], Path], None]


def scenes() -> list[tuple[str, str]]:
    """What the page has its reader do, in order: a file's name and its text, or "" and a command."""
    found = []
    for kind, text in blocks_of(PAGE):
        if kind == "sh":
            found += [("", line) for line in text.splitlines()]
        elif kind == "toml":
            found.append((text.splitlines()[0].removeprefix("# "), text))
    return found


def tell(folder: Path, run: Run) -> None:
    """Do all of it in a new folder.

    Args:
        folder: is emptied first.
        run: calls one command, given as words that begin with `dpmed`, in the folder.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, text in scenes():
        if name:
            (folder / name).write_text(text, encoding="utf-8")
        else:
            run(split(text), folder)


def call(words: Sequence[str], folder: Path) -> None:
    """Call a command as a process, with its output where ours goes and its time below."""
    print(f"\n$ {' '.join(words)}", flush=True)
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", *words], cwd=folder, check=True)
    print(f"({time.monotonic() - begun:.0f} s)", flush=True)


def main(folder: Path) -> None:
    """Tell the story and say how long it took."""
    begun = time.monotonic()
    tell(folder, call)
    print(f"\n{folder}: the whole story in {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
