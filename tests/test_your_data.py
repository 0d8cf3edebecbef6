"""docs/your-data.md, run as a reader would: every file written, every command called, in order."""

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

PAGE = Path(__file__).resolve().parents[1] / "docs" / "your-data.md"
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


def test_the_page_has_files_and_commands():
    kinds = [kind for kind, _ in blocks()]
    assert kinds.count("sh") >= 4 and kinds.count("toml") == 2 and kinds.count("python") == 1


def test_the_table_begins_as_the_page_shows(followed):
    folder, _ = followed
    shown = re.search(r"^```\n(image,patient.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)[1]
    written = [line.split(",")[:8] for line in (folder / "cohort" / "table.csv").read_text().splitlines()]
    lines = [line.split(",") for line in shown.splitlines()]
    assert len(lines) > 2 and lines == written[: len(lines)]


def test_the_runs_are_private_by_patient_and_have_what_the_page_promises(followed):
    folder, _ = followed
    for name in ("findings", "waves"):
        ledger = json.loads((folder / name / "privacy.json").read_text())
        assert ledger["private"] and ledger["unit_of_privacy"] == "patient" and ledger["epsilon"] <= 8.0
    rows = (folder / "findings" / "labels.csv").read_text().splitlines()
    assert rows[0] == "label,auroc,positive,negative,unknown" and len(rows) == 4
    assert (folder / "findings" / "breakdown.csv").is_file()
    notes = json.loads((folder / "waves" / "privacy.json").read_text())["outside_accounting"]
    assert any("mydata:make" in note and "SHA-256" in note and "unchecked" in note for note in notes)


def test_the_plans_say_what_was_found(followed):
    folder, outputs = followed
    plan = next(output for line, output in outputs.items() if line.startswith("dpmed train findings.toml --dry-run"))
    assert "multi-label" in plan and "3 labels" in plan
    assert (folder / "plan" / "contact_sheet.png").is_file()
    assert json.loads((folder / "organ-plan" / "plan.json").read_text())["data"]["input_shape"] == [16, 16, 8, 2]


def test_without_the_path_the_code_is_not_found(followed, monkeypatch):
    folder, _ = followed
    monkeypatch.chdir(folder)
    # As under `python -m`, which puts the current folder in front.
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.delitem(sys.modules, "mydata", raising=False)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    result = CliRunner().invoke(app, ["train", "waves.toml", "--out", "again"])
    assert result.exit_code == 2 and "no module mydata on the Python path" in result.output
    assert not (folder / "again").exists()
