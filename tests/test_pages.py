"""Messages name pages that their reader has: in a checkout, and in a wheel, which is built and unpacked here."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from dpmed.pages import page, pages_folder

ROOT = Path(__file__).resolve().parents[1]


def test_the_checkout_has_its_pages(monkeypatch, tmp_path):
    assert pages_folder() == ROOT / "docs"
    monkeypatch.chdir(ROOT)
    assert page("matching.md") == "docs/matching.md"
    monkeypatch.chdir(tmp_path)
    assert Path(page("matching.md")) == ROOT / "docs" / "matching.md"


def test_every_page_that_the_code_asks_for_exists():
    asked = {
        name
        for path in (ROOT / "dpmed").rglob("*.py")
        for name in re.findall(r"\bpage\(['\"]([^'\"]+)['\"]\)", path.read_text(encoding="utf-8"))
    }
    assert asked
    for name in asked:
        assert (ROOT / "docs" / name).is_file(), name


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The files of a wheel, as an installer would lay them out."""
    build = pytest.importorskip("hatchling.builders.wheel").WheelBuilder
    # Of a copy: the builder writes beside what it builds.
    copy = tmp_path_factory.mktemp("copy") / "dpmed"
    copy.mkdir()
    for name in ("dpmed", "docs", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    (wheel,) = build(str(copy)).build(directory=str(copy / "dist"), versions=["standard"])
    site = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def test_a_wheel_has_the_same_pages(installed):
    for path in (ROOT / "docs").rglob("*"):
        if path.is_file():
            inside = installed / "dpmed" / "_docs" / path.relative_to(ROOT / "docs")
            assert inside.read_bytes() == path.read_bytes(), path


def test_a_message_of_an_installed_wheel_names_a_page_that_is_there(installed, tmp_path):
    weights = tmp_path / "weights.pth"
    weights.touch()
    code = "import sys, pathlib, dpmed.tensors as t; t.read_tensors(pathlib.Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code, weights], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    named = re.search(r"convert them with (\S+)\.\s", done.stderr)
    assert named, done.stderr
    assert Path(named[1]) == installed / "dpmed" / "_docs" / "convert_weights.py"
    assert Path(named[1]).is_file()


def test_a_source_distribution_takes_only_what_is_ours(tmp_path):
    # A checkout also holds patients' images, cohort files and what commands wrote.
    build = pytest.importorskip("hatchling.builders.sdist").SdistBuilder
    ours = {"dpmed/__init__.py", "configs/a.toml", "docs/index.md", "tests/test_a.py"}
    others = {"data/ham10000/ISIC_1.jpg", "attack/originals/0.png", "cohort.db", "scan.dcm"}
    for name in (*ours, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    files = {"pyproject.toml", "README.md", "LICENSE"}
    for name in (*files, ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    (archive,) = build(str(tmp_path)).build(directory=str(tmp_path / "dist"), versions=["standard"])
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert names == {*ours, *files, ".gitignore", "PKG-INFO"}
