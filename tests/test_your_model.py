"""docs/your-model.md, run as a reader would: every file written, every command called, in order."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

import jax
import pytest
from typer.testing import CliRunner

from dpmed.cli.app import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "your-model.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def blocks():
    return BLOCK.findall(PAGE.read_text(encoding="utf-8"))


def call(line, monkeypatch):
    words = shlex.split(line)
    with monkeypatch.context() as patch:
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            patch.setenv(name, value)
            if name == "PYTHONPATH":
                patch.setattr(sys, "path", [str(Path(value).resolve()), *sys.path])
        assert words.pop(0) == "dpmed", line
        # optax does not bear the strictness of the tests.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return CliRunner().invoke(app, words)


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The folder of a reader who has done all that the page says, and what each command printed."""
    folder, outputs = tmp_path_factory.mktemp("reader"), {}
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        os.chdir(folder)
        try:
            for kind, text in blocks():
                if kind == "sh":
                    for line in text.splitlines():
                        result = call(line, patch)
                        assert result.exit_code == 0, f"{line}\n{result.output}"
                        outputs[line] = result.output
                else:
                    name = re.match(r"# (\S+)\n", text)[1]
                    (folder / name).write_text(text, encoding="utf-8")
        finally:
            os.chdir(before)
    return folder, outputs


def test_a_network_and_a_loss_of_ones_own_train_and_are_named_in_the_ledger(followed):
    folder, outputs = followed
    assert len(outputs) == 2
    ledger = json.loads((folder / "run" / "privacy.json").read_text())
    text = " ".join(ledger["outside_accounting"])
    assert "mynetworks:make" in text and "mynetworks:focal" in text and "SHA-256" in text
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
    low, _ = metrics["intervals"]["accuracy"]
    assert low > 0.2
