"""Limits that keep the house readable, and words that must not occur."""

import builtins
import re
import subprocess
import symtable
from pathlib import Path

import pytest

from dpmed import __version__

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "dpmed").rglob("*.py"))


def test_files_are_short_enough_for_one_sitting():
    for path in MODULES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_nothing_is_unpickled():
    # Pieces, so that this file does not match itself.
    for path in MODULES:
        assert not re.search("allow_pickle=" + "True|torch" + r"\.load|import " + "pickle", path.read_text()), path


def names_used(table):
    yield from (symbol.get_name() for symbol in table.get_symbols() if symbol.is_global() and symbol.is_referenced())
    for child in table.get_children():
        yield from names_used(child)


def undefined(source):
    module = symtable.symtable(source, "module", "exec")
    known = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    known |= set(dir(builtins)) | {"__file__", "__name__"}
    # Functions and classes are namespaces of the module.
    known |= {child.get_name() for child in module.get_children()}
    return set(names_used(module)) - known


def test_every_name_is_defined():
    # The linter and the type checker cannot be asked: they take shape strings for names.
    assert undefined("from a import b\nX = 1\ndef f(x: c): return X + b + len(d)") == {"c", "d"}
    for path in MODULES:
        assert not undefined(path.read_text(encoding="utf-8")), path


def test_the_changelog_knows_this_version():
    versions = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert versions[0] == __version__


def test_no_file_holds_a_registrys_address_or_a_path_of_one_machine():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    forbidden = re.compile("pypi" + r"\.org|files\.python" + "hosted|/" + "work/main|/" + "root/")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".toml", ".md", ".txt", ".json", ""} and path.is_file():
            assert not forbidden.search(path.read_text(encoding="utf-8", errors="ignore")), name
