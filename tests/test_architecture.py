"""Limits that keep the house readable, and words that must not occur."""

import ast
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


ROOMS = sorted({path.parent for path in MODULES})


def test_every_module_has_its_twin():
    lacking = set()
    for path in MODULES:
        module = path.relative_to(ROOT / "dpmed")
        twin = ROOT / "tests" / module.parent / f"test_{module.stem}.py"
        if module.stem not in {"__init__", "__main__"} and not twin.is_file():
            lacking.add(module.as_posix())
    assert not lacking


def test_a_class_has_twelve_public_methods_at_most():
    large = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                methods = [part.name for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
                if sum(not name.startswith("_") for name in methods) > 12:
                    large.add(f"{path.relative_to(ROOT).as_posix()}: {node.name}")
    assert not large


def test_a_room_has_fifteen_files_of_its_own_at_most():
    large = {
        room.relative_to(ROOT).as_posix()
        for room in ROOMS
        if sum(path.parent == room and path.stem != "__init__" for path in MODULES) > 15
    }
    assert not large


def literals(tree):
    """Strings of a module, parts of f-strings among them, but for those that stand alone: docstrings."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


USERS_WORDS = re.compile(r"^--[a-z]|\[(data|model|augmentation|loss|optimizer|schedule|training|privacy|evaluation)\]")


def test_only_the_command_line_and_the_config_speak_of_options_and_tables():
    source = 'f("--eps"); g(f"[data] root = {x}"); h("dpmed train --resume"); i["data"]; a[data]\n"[data]"\n'
    assert [text for text in literals(ast.parse(source)) if USERS_WORDS.search(text)] == ["--eps", "[data] root = "]
    for path in MODULES:
        module = path.relative_to(ROOT / "dpmed")
        if module.parts[0] in {"cli", "config"}:
            continue
        found = [text for text in literals(ast.parse(path.read_text(encoding="utf-8"))) if USERS_WORDS.search(text)]
        assert not found, path


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


def test_every_file_that_a_page_names_exists():
    named = re.compile(r"(?<![\w/.<-])((?:[a-z][a-z0-9_]*/)+[a-z][a-z0-9_]*\.(?:py|md))(?![\w-])")
    homes = [ROOT, ROOT / "dpmed", ROOT / "docs"]
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for name in named.findall(page.read_text(encoding="utf-8")):
            # A path that begins with a folder of ours is a claim; others are of the reader's own project.
            if any((home / name.split("/")[0]).is_dir() for home in homes):
                assert any((home / name).is_file() for home in homes), f"{page.name} names {name}"
