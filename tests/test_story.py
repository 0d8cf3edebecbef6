"""docs/story.md, without its minutes: its config holds, its commands can be called, and each finds what it reads."""

from pathlib import Path

import pytest
import typer

from dpmed.cli.app import app
from dpmed.config.load import config_from_toml
from tests import story
from tests.reader import ROOT


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What would be called, in order, in a folder where nothing is made but the page's own files."""
    called, folder = [], tmp_path_factory.mktemp("told") / "new"
    story.tell(folder, lambda words, place: called.append((list(words), place)))
    return folder, called


def test_the_config_is_valid_and_charges_a_cohort(told):
    folder, _ = told
    config = config_from_toml((folder / "findings.toml").read_text(), "findings.toml")
    assert config.privacy.unit == "patient" and config.privacy.noise_source == "os-entropy"
    assert config.privacy.cohort_epsilon > config.privacy.epsilon


def test_every_command_parses(told):
    folder, called = told
    commands = typer.main.get_command(app).commands
    assert len(called) > 12 and all(place == folder for _, place in called)
    for words, _ in called:
        assert words[0] == "dpmed", words
        # Options and arguments are checked, and nothing is run.
        commands[words[1]].make_context(words[1], words[2:])


def test_each_command_reads_what_was_made_before_it(told):
    folder, called = told
    made = {path.name for path in folder.iterdir()} | {"cohort.db"}
    for words, _ in called:
        for number, word in enumerate(words[2:], 2):
            before, name = words[number - 1], word.partition("data.root=")[2] or word
            is_path = not word.startswith("-") and (
                not before.startswith("-") or before in ("--data", "--check", "--set")
            )
            if is_path and not (words[1] == "phantom" and number == 2):
                assert Path(name).parts[0] in made, f"{words}: {name} is made by nothing before it"
        if "--out" in words:
            out = words[words.index("--out") + 1]
            assert out not in made, f"{out} is written twice"
            made.add(out)
    assert {"bundle", "audited", "attack", "matches", "report", "predictions"} <= made


def test_make_tells_it():
    assert "\nstory: .venv" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "tests.story build/story" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_a_command_that_fails_ends_the_story(tmp_path):
    with pytest.raises(story.subprocess.CalledProcessError):
        story.call(["dpmed", "train", "nothing.toml"], tmp_path)
