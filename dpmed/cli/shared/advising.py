"""`dpmed train` before the real training: advice, and settings that are tried."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from dpmed.cli.shared.console import Console
from dpmed.cli.shared.options import time_stamp

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
        folder = new_run_folder(out, command="advise", config_name=loaded.name, time=time_stamp())
        summary.write(folder)
    console.facts("Advice", summary.facts())
    console.table("Noise", *summary.table())
    for sentence in summary.sentences():
        console.text(sentence)
    console.text(_command(config, overrides, summary.advice.overrides))
    console.result({"folder": str(folder), **summary.to_json()}, folder)


def _command(config: str, overrides: Sequence[str], suggested: Sequence[str]) -> str:
    """The call that trains with what is suggested, and with what was typed of all else."""
    replaced = {key.partition("=")[0] for key in suggested}
    kept = [typed for typed in overrides if typed.partition("=")[0].strip() not in replaced]
    return shlex.join(["dpmed", "train", config, *(part for one in (*kept, *suggested) for part in ("--set", one))])
