"""What all commands share: help, version, completion, exit codes, and no heavy imports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dpmed import __version__
from dpmed.cli.app import app
from tests.workflows.conftest import ENVIRONMENT

HEAVY = ("jax", "equinox", "optax", "matplotlib", "pandas", "numpy", "scipy", "skimage", "sklearn", "nibabel")


def modules_loaded_by(arguments):
    program = (
        "import sys, json\n"
        f"sys.argv = ['dpmed', *{arguments!r}]\n"
        "from dpmed.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_help_and_version_load_nothing_heavy():
    for arguments in (["--help"], ["--version"], ["--docs"], ["train", "--help"]):
        assert not modules_loaded_by(arguments) & set(HEAVY), arguments


def test_version_is_the_package_version(dpmed):
    done = dpmed("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"dpmed {__version__}")


def test_no_home_folder_and_no_greek_letters_end_no_command(tmp_path):
    # As in a container that runs under a number without a name, with an ASCII log.
    program = (
        "import pathlib, sys\n"
        "def home(): raise RuntimeError('Could not determine home directory.')\n"
        "pathlib.Path.home = home\n"
        "from dpmed.__main__ import program\nprogram()"
    )
    words = ["bounds", "quickstart", "--eps", "1", "--adversary", "worst-case", "--out", str(tmp_path / "out")]
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    environment.pop("XDG_CACHE_HOME", None)
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out") and "| epsilon |" in done.stdout


def test_the_documentation_is_where_it_says(dpmed):
    done = dpmed("--docs")
    assert done.returncode == 0
    assert (Path(done.stdout.strip()) / "index.md").is_file()


def test_no_word_of_the_help_is_cut_in_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    group = typer.main.get_command(app)
    for name in group.commands:
        text = CliRunner().invoke(app, [name, "--help"], prog_name="dpmed").stdout
        cut = [word for word in text.split() if word.endswith("…") and not word.isupper() and len(word) > 1]
        assert set(cut) <= {"10,11,…", "1,8,…"}, f"{name}: {cut}"


def test_help_lists_the_commands_in_the_order_of_work(dpmed):
    done = dpmed("--help")
    assert done.returncode == 0
    order = [
        name
        for name in ("train", "reconstruct", "match", "visualize", "bounds", "phantom")
        if f"│ {name} " in done.stdout
    ]
    places = [done.stdout.index(f"│ {name} ") for name in order]
    assert "train" in order
    assert places == sorted(places)


def test_an_unknown_command_or_option_exits_with_2(dpmed):
    assert dpmed("trian").returncode == 2
    assert dpmed("train", "--epsilon", "3").returncode == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("phantom", "table", "--num", "abc"), "Invalid value for '--num': must be a whole number (got 'abc')"),
        (("phantom", "table", "--seed", "-1"), "Invalid value for '--seed': must be at least 0 (got '-1')"),
        (("reconstruct", "--eps", "x"), "Invalid value for '--eps': must be a number (got 'x')"),
    ],
)
def test_an_option_of_the_wrong_kind_is_told_in_our_words(dpmed, words, message):
    done = dpmed(*words)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train",), "is too long for the name of a file or folder"),
        (("match",), "is too long for the name of a file or folder"),
        (("train", "--resume"), "is too long for the name of a file or folder"),
        (("train", "quickstart", "--out"), "cannot be used (File name too long). Choose another folder with --out."),
    ],
)
def test_a_name_that_is_too_long_for_a_file_is_wrong_input(dpmed, words, message):
    done = dpmed(*words, "a" * 300)
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.parametrize("option", ["--quiet", "-q", "--debug"])
def test_an_option_of_the_program_after_the_command_is_told_where_it_belongs(dpmed, option):
    result = dpmed("train", "quickstart", option)
    assert result.returncode == 2
    assert f"{option} comes before the command: dpmed {option} train …" in result.stderr
    # Where it does stand before, a value that it does not take is another matter.
    assert "comes before" not in dpmed("--quiet=3", "train").stderr


def test_completion_knows_commands_and_shipped_configs():
    def complete(words, count):
        env = {"_DPMED_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
        program = "import sys; sys.argv = ['dpmed']; from dpmed.cli.app import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env={**ENVIRONMENT, **env}
        )
        return done.stdout.split()

    assert "train" in complete("dpmed tr", 1)
    assert "quickstart_nonprivate" in complete("dpmed train quick", 2)


def test_debug_shows_the_traceback_and_plain_use_does_not(dpmed_process):
    plain, debug = dpmed_process("train", "nothing.toml"), dpmed_process("--debug", "train", "nothing.toml")
    assert plain.returncode == 2
    assert plain.stderr.count("\n") == 1
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
    assert plain.returncode == debug.returncode == 2
