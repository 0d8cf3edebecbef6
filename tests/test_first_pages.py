"""The pages for the first hour, ε, ledgers and releases: their commands are called in order, on less data."""

import hashlib
import json
import math
import re

import pytest

from dpmed.privacy.accountant import epsilon
from dpmed.privacy.mechanism import SampledGaussian
from tests.reader import ROOT, blocks_of, follow, reading
from tests.test_readme import commands

PAGES = ("first-hour", "choosing-epsilon", "ledger", "releasing")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """The folder of a reader of all pages, who calls no command twice, nor those that the README has too."""
    folder = tmp_path_factory.mktemp("reader")
    known = {f"dpmed {line}" for line in commands()}
    for page in PAGES:
        known |= set(follow(f"docs/{page}.md", folder, shorten=True, known=known))
    return folder


def test_the_commands_leave_what_the_pages_say(followed):
    for name in (
        "first/privacy.json",
        "risk/bounds.csv",
        "judged/report.html",
        "bundle/MODEL_CARD.md",
        "chances/bounds.png",
        "budgets/sweep.png",
        "budgets/privacy.json",
        "predictions/predictions.csv",
    ):
        assert (followed / name).is_file(), name


def test_the_chances_of_a_sure_guess_are_those_of_the_formula():
    rows = list(table_rows("choosing-epsilon", "| ε | sure at most |"))
    assert len(rows) == 5
    for given, said in rows:
        odds = math.exp(float(given))
        check_limit(said, odds / (1 + odds))


def check_limit(said, value):
    """What a page says is a limit: not below the value, and no more above it than its last digit."""
    number = said.split(" ")[0]
    assert 0 <= float(number) - 100 * value < 10.0 ** -len(number.partition(".")[2]), (said, value)


def test_the_risks_of_the_quickstart_are_as_printed(followed):
    rows = {row["epsilon"]: row for row in json.loads((followed / "chances" / "bounds.json").read_text())["rows"]}
    stated = list(table_rows("choosing-epsilon", "| ε | knows all other images"))
    assert len(stated) == 3
    for given, *said in stated:
        row = rows[float(given)]
        for text, name in zip(said, ("worst_case", "relaxed_constant_sign", "relaxed"), strict=True):
            check_limit(text, row[f"{name}_upper"])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"at most (\S+ %) at ε = 1 and (\S+ %) at ε = 8", readme)
    for given, text in zip((1, 8), found.groups(), strict=True):
        check_limit(text, rows[given]["worst_case_upper"])
    inverse = json.loads((followed / "tolerable" / "bounds.json").read_text())["max_risk"]
    # What the page permits is no more than what keeps the risk.
    assert [math.floor(10 * one["epsilon_pld"]) / 10 for one in inverse] == [7.3, 20.8]


def table_rows(page, head):
    """Cells of the first table that begins so."""
    _, _, rest = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").partition(f"\n{head}")
    for line in rest.split("\n\n")[0].splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def test_every_line_of_a_ledger_is_explained(followed):
    ledger = json.loads((followed / "first" / "privacy.json").read_text())
    page = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
    # The noise of the counts that move an adaptive norm stands on the page of clipping.
    assert {name for name in ledger if f"`{name}`" not in page} == {"clipping_count_noise"}
    assert set(re.findall(r"^\| `([a-z_0-9]+)`", page, flags=re.MULTILINE)) <= set(ledger) | {"private"}
    assert ledger["model_sha256"] == hashlib.sha256((followed / "first" / "model.eqx").read_bytes()).hexdigest()


def test_the_ledger_is_checked_as_the_page_shows(followed):
    (code,) = [text for kind, text in blocks_of("docs/ledger.md") if kind == "python"]
    with reading(followed):
        exec(compile(code, "docs/ledger.md", "exec"), {})  # our own page, as its reader runs it
    ledger = json.loads((followed / "first" / "privacy.json").read_text())
    mechanism = SampledGaussian(
        noise_multiplier=ledger["noise_multiplier"], sampling_rate=ledger["sampling_rate"], steps=ledger["steps"]
    )
    assert epsilon(mechanism, ledger["delta"]) == pytest.approx(ledger["epsilon_pld"], rel=1e-9)


def test_the_bundle_is_whole(followed):
    for line in (followed / "bundle" / "checksums.sha256").read_text().splitlines():
        digest, name = line.split(maxsplit=1)
        assert hashlib.sha256((followed / "bundle" / name.lstrip("*")).read_bytes()).hexdigest() == digest
