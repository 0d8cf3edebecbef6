"""The site: every page is in its navigation, it builds strictly, and reading it fetches nothing from anywhere."""

import html
import html.parser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from dpmed.cli.app import app
from tests.reader import ROOT, blocks_of

DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_the_navigation_names_each_page_once():
    _, _, nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")
    named = re.findall(r"([\w/-]+\.md)$", nav, flags=re.MULTILINE)
    assert sorted(named) == PAGES


def test_the_first_page_leads_to_every_other():
    linked = set(re.findall(r"\]\(([\w/-]+\.md)\)", (DOCS / "index.md").read_text(encoding="utf-8")))
    assert linked == set(PAGES) - {"index.md"}


def test_pictures_are_light_described_and_used():
    used = set()
    for name in PAGES:
        for described, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", (DOCS / name).read_text(encoding="utf-8")):
            assert len(described) > 20, f"{name}: {target} says nothing to who cannot see it"
            used.add(target)
    pictures = {path.relative_to(DOCS).as_posix(): path for path in (DOCS / "pictures").iterdir()}
    assert used == set(pictures)
    for path in pictures.values():
        assert path.stat().st_size < 40_000, path


def shown_commands():
    """Lines of code that call dpmed, with their pages; what shows where a line would break is left out."""
    for page in ["README.md", *(f"docs/{name}" for name in PAGES)]:
        for kind, text in blocks_of(page):
            for line in text.splitlines() if kind in {"", "sh"} else ():
                called = re.match(r"(?:\S*\.venv/bin/|\$ )?dpmed ([a-z]+) ([^#]*)", line.strip())
                if called and "[OPTIONS]" not in line:
                    yield page, called[1], re.findall(r"(?<![\w-])--[a-z][a-z-]*", called[2])


def test_commands_and_options_that_pages_show_exist():
    commands = typer.main.get_command(app).commands
    shown = list(shown_commands())
    assert len(shown) > 40
    for page, name, options in shown:
        known = {one for parameter in commands[name].params for one in [*parameter.opts, *parameter.secondary_opts]}
        assert set(options) <= known | {"--help"}, f"{page}: dpmed {name} has no {set(options) - known}"


class Fetched(html.parser.HTMLParser):
    """Addresses that a browser fetches when it opens a page; links, which a reader would have to follow, are not."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "link" and given.get("rel") in {"canonical", "next", "prev"}:
            return
        if tag not in {"a", "form"}:
            self.found += [given[name] for name in ("src", "href", "data", "poster") if given.get(name)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built in a process of its own."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        # Not --quiet: warnings that are not said are not counted.
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_reading_it_fetches_nothing_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for path in pages:
        fetched = Fetched()
        fetched.feed(path.read_text(encoding="utf-8"))
        assert len(fetched.found) >= 5
        for address in fetched.found:
            assert not re.match(r"(?:[a-z]+:)?//", address), f"{path.name} fetches {address}"
            local = address.split("#")[0].split("?")[0]
            if local and not local.startswith(("data:", "/")):
                assert (path.parent / local).exists(), f"{path.name} needs {address}"


@pytest.mark.slow
def test_tables_lists_and_docstrings_are_rendered(site):
    commands = (site / "commands.html").read_text(encoding="utf-8")
    assert "--by-unit mean|max" in html.unescape(commands), "the bars of a cell"
    api = (site / "api.html").read_text(encoding="utf-8")
    for name in ("train", "load", "bounds", "Predictor", "Dataset", "InputError"):
        assert re.search(rf'id="[\w.]*\.{name}"', api), name
    for path in sorted(site.rglob("*.html")):
        text = re.sub(r"<pre.*?</pre>|<code.*?</code>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        lost = re.search(r"<p>[^<]*\n(?:- |\| |1\. )[^<]*", text)
        assert not lost, f"{path.name}: a list or table right after a paragraph: {lost[0][:200]}"


@pytest.mark.slow
def test_search_works_from_the_files_alone(site):
    assert (site / "search" / "search_index.js").read_text(encoding="utf-8").startswith("var __index = {")
    assert 'src="assets/iframe-worker.js"' in (site / "index.html").read_text(encoding="utf-8")
    assert Path(site / "assets" / "iframe-worker.js").is_file()
