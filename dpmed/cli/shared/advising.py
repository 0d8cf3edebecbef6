"""`dpmed train` before the real training: advice, and trials of settings."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpmed.cli.shared.console import Console
from dpmed.errors import InputError

if TYPE_CHECKING:
    from dpmed.workflows.train.several.selection import SelectionSummary

_FEWEST_SETTINGS, _MOST_SETTINGS = 2, 1000


def start_advice(console: Console, config: str, overrides: list[str], out: Path | None) -> None:
    """Show what published rules suggest for a config, and the folder that holds it.

    Raises:
        InputError: the config is wrong or not private.
    """
    from dpmed.config.load import load_config
    from dpmed.files import new_run_folder
    from dpmed.workflows.train import advice as workflow

    loaded = load_config(config, overrides)
    with loaded.locating():
        summary = workflow.run(loaded.config, console)
        folder = new_run_folder(out, command="advise", config_name=loaded.name)
        summary.write(folder)
    console.facts("Advice", summary.facts())
    console.table("Noise", *summary.table())
    for sentence in summary.sentences():
        console.text(sentence)
    console.text(_command(config, overrides, summary.advice.overrides))
    console.result({"folder": str(folder), **summary.to_json()}, folder)


def start_tuning(
    console: Console, config: str, overrides: list[str], out: Path | None, *, settings: int, on: str | None
) -> None:
    """Try settings, on public data or on the training data, and show the best, its cost and the folder.

    Raises:
        InputError: the number or a config is wrong, or the public data are the training data.
    """
    from dpmed.config.load import load_config
    from dpmed.errors import renaming
    from dpmed.files import make_folder, new_run_folder
    from dpmed.workflows.train.several import tuning as workflow

    if not _FEWEST_SETTINGS <= settings <= _MOST_SETTINGS:
        problem = f"must be a whole number from {_FEWEST_SETTINGS} to {_MOST_SETTINGS}"
        raise InputError(problem, where=f"--tune {settings}")
    loaded, public = load_config(config, overrides), None if on is None else load_config(on)
    with loaded.locating(), renaming(on=f"--on {on}"):
        if out is not None and workflow.holds_tuning(out):
            folder = make_folder(out)
        else:
            folder = new_run_folder(out, command="tune", config_name=loaded.name)
        summary: workflow.TuningSummary | SelectionSummary
        if public is None:
            summary = workflow.on_training_data(loaded.config, folder, console, count=settings)
        else:
            summary = workflow.on_public_data(loaded.config, public, folder, console, count=settings)
    console.table("Trials", *summary.table())
    console.text(summary.words())
    console.text(_command(config, overrides, summary.overrides))
    console.result(summary.to_json(), folder)


def _command(config: str, overrides: Sequence[str], suggested: Sequence[str]) -> str:
    """The command that trains with the suggested settings; all other overrides stay as typed."""
    replaced = {key.partition("=")[0] for key in suggested}
    kept = [typed for typed in overrides if typed.partition("=")[0].strip() not in replaced]
    return shlex.join(["dpmed", "train", config, *(part for one in (*kept, *suggested) for part in ("--set", one))])
