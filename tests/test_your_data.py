"""docs/your-data.md, run as a reader would: every file written, every command called, in order."""

import json
import sys

import pytest

from tests.reader import blocks_of, call, follow

PAGE = "docs/your-data.md"


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The folder of a reader who has done all that the page says, and what each command printed."""
    folder = tmp_path_factory.mktemp("reader")
    return folder, follow(PAGE, folder)


def test_the_page_has_files_and_commands():
    kinds = [kind for kind, _ in blocks_of(PAGE)]
    assert kinds.count("sh") >= 4 and kinds.count("toml") == 2 and kinds.count("python") == 1


def test_the_table_begins_as_the_page_shows(followed):
    folder, _ = followed
    (shown,) = [text for kind, text in blocks_of(PAGE) if not kind and text.startswith("image,patient")]
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
    done = call("dpmed train waves.toml --out again")
    assert done.returncode == 2 and "no module mydata on the Python path" in done.stderr
    assert not (folder / "again").exists()
