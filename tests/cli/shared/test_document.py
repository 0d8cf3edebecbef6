"""docs/commands.md says what the command line says of itself."""

import re

import typer

from dpmed.cli.app import app
from dpmed.cli.shared.document import commands_page, write_page
from tests.reader import ROOT


def test_the_page_is_not_stale(tmp_path):
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == commands_page(app), "run `make docs`"
    assert write_page(tmp_path).read_text(encoding="utf-8") == commands_page(app)


def test_it_has_every_command_with_every_option_that_help_has(dpmed):
    parts = re.split(r"^## dpmed ?", commands_page(app), flags=re.MULTILINE)
    sections = {part.split("\n")[0]: part for part in parts[1:]}
    names = set(typer.main.get_command(app).commands)
    assert set(sections) == {"", *names}
    for name in ("train", "bounds", "phantom"):
        helped = dpmed(name, "--help").stdout
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", helped)) - {"--help"}
        assert options
        for option in options:
            assert f"`{option}" in sections[name] or option in sections[name], (name, option)


def small(name: str, count: int = 3, ratio: float = 0.0, keep: bool = True, only: list[str] | None = None) -> None:
    """Do a small thing

    on two lines."""


def test_options_and_settings_in_a_sentence_are_code():
    page = commands_page(app)
    assert "Shorthand for `--set training.seed=N`." in page
    assert "such as `data.root=DIR`" in page


def test_values_defaults_and_repetition_are_told():
    one = typer.Typer()
    one.command()(lambda: None)  # a second command, so that typer makes a group
    one.command("small")(small)
    page = commands_page(one)
    assert "Do a small thing on two lines." in page
    assert "dpmed small NAME [OPTIONS]" in page
    assert "| `--count N` |  Default: `3`. |" in page
    assert "| `--ratio X` |  Default: `0.0`. |" in page
    assert "| `--keep`, `--no-keep` |  Default: `--keep`. |" in page
    assert "| `--only TEXT` |  Repeatable. |" in page
