"""README.md: every command it shows is called, in order, on less data and for fewer steps; its config is valid."""

import re
import shlex

import pytest

from dpmed.config.load import config_from_toml
from tests.reader import ROOT, blocks_of, call, reading

PAGE = "README.md"
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


def commands():
    """Lines that call dpmed, by the shell or by make."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for kind, text in blocks_of(PAGE):
        if kind:
            continue
        for line in text.splitlines():
            if line.startswith("make "):
                recipe = re.search(rf"^{line.split()[1]}:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE)[1]
                yield from re.findall(r"^\t\$\(BIN\)/dpmed (.*)$", recipe, flags=re.MULTILINE)
            elif line.startswith(".venv/bin/dpmed "):
                yield line.removeprefix(".venv/bin/dpmed ")


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The folder of a reader who has called all of them, and what each printed."""
    folder, outputs = tmp_path_factory.mktemp("reader"), {}
    with reading(folder):
        for line in commands():
            added = next((more for start, more in SMALLER.items() if line.startswith(start)), [])
            done = call(shlex.join(["dpmed", *shlex.split(line), *added]))
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            outputs[line] = done.stdout
    return folder, outputs


@pytest.mark.slow
def test_every_command_does_what_the_page_says(followed):
    folder, outputs = followed
    assert len(outputs) >= 8
    shown = next(text for _, text in blocks_of(PAGE) if text.startswith("Result\n"))
    demo = outputs["train quickstart --out build/demo"]
    # The same lines, whatever their numbers.
    names = [line.split("  ")[1].strip() for line in shown.splitlines() if line.startswith("  ")]
    assert names == ["test loss", "test accuracy", "privacy", "time"]
    assert all(re.search(rf"^\s*{name}\s", demo, flags=re.MULTILINE) for name in names)
    assert "may be released under the stated ε" in demo and demo.splitlines()[-1] == "build/demo"
    for name in ("build/demo/curves.png", "build/demo/privacy.json", "report/report.html"):
        assert (folder / name).is_file(), name


def test_the_config_is_valid():
    (text,) = [text for kind, text in blocks_of(PAGE) if kind == "toml"]
    config = config_from_toml(text, "README.md")
    assert (config.privacy.epsilon, config.privacy.clipping.name, config.data.name) == (8, "flat", "folder")
