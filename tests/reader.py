"""A reader of a page of documentation: in a folder of their own, writes its files and calls its commands, in order."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.workflows.conftest import call_here

ROOT = Path(__file__).resolve().parents[1]
# What is added to a command that would take minutes; of an option given twice the last one counts.
TINY = ["--set", "data.limit=100", "--set", "training.batch_size=16", "--set", "training.epochs=2"]
SHORT = ["--set", "evaluation.every_epochs=2", "--set", "evaluation.bootstrap=5"]
SMALLER = {
    "train quickstart": [*TINY, *SHORT],
    "train digits_prior": ["--set", "training.epochs=2", "--set", "training.batch_size=8", *SHORT],
    "reconstruct": TINY,
    "phantom": ["--num", "60"],
    "train cifar10_dp_quick_phantom": [
        *SHORT, "--set", "training.epochs=2", "--set", "training.batch_size=8", "--set", "model.channels=[2,2,4,4]",
        "--set", "model.groups=2",
    ],
}  # fmt: skip
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def blocks_of(page: str) -> list[tuple[str, str]]:
    """Kind and text of each block of a page, whose path is below the project's root; "" for blocks without a kind."""
    return _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Work within a folder, with a cache of its own."""
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def call(line: str) -> subprocess.CompletedProcess[str]:
    """Call `NAME=VALUE dpmed …` as a shell would, in this process."""
    words = shlex.split(line)
    with pytest.MonkeyPatch.context() as patch:
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            patch.setenv(name, value)
            if name == "PYTHONPATH":
                patch.setattr(sys, "path", [str(Path(value).resolve()), *sys.path])
        assert words.pop(0) == "dpmed", line
        return call_here(*words)


def shortened(line: str) -> str:
    """A call of `dpmed …` on less data and for fewer steps, where it would take long."""
    added = next((more for start, more in SMALLER.items() if line.startswith(f"dpmed {start}")), [])
    return shlex.join([*shlex.split(line), *added])


def follow(page: str, folder: Path, *, shorten: bool = False, known: Collection[str] = ()) -> dict[str, str]:
    """Write the files and call the commands of a page, shortened or as they stand; gives what each command printed.

    Commands in `known` are left out: another page has had them called.
    """
    outputs = {}
    with reading(folder):
        for kind, text in blocks_of(page):
            if kind == "sh":
                for line in [line for line in text.splitlines() if line not in known]:
                    done = call(shortened(line) if shorten else line)
                    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
                    outputs[line] = done.stdout
            elif kind:
                name = re.match(r"# (\S+)\n", text)
                assert name or kind == "python", f"a file without a name: {text}"
                if name:
                    (folder / name[1]).write_text(text, encoding="utf-8")
    return outputs
