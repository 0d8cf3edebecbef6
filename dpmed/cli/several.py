"""Several runs of `dpmed train`: over seeds, over budgets, or both."""

from pathlib import Path
from typing import TYPE_CHECKING

from dpmed.cli.console import Console
from dpmed.cli.options import time_stamp
from dpmed.errors import InputError

if TYPE_CHECKING:
    from dpmed.workflows.train.seeds import SeedsSummary
    from dpmed.workflows.train.sweep import SweepSummary


def split_sweep(overrides: list[str], epsilons: str | None) -> tuple[list[str], str | None]:
    """`--set privacy.epsilon=1,8` means `--epsilons 1,8`."""
    key = "privacy.epsilon="
    lists = [text for text in overrides if text.replace(" ", "").startswith(key) and "," in text]
    if not lists:
        return overrides, epsilons
    if epsilons is not None or len(lists) > 1:
        raise InputError("the budgets of a sweep are given twice", where="--epsilons")
    return [text for text in overrides if text not in lists], lists[0].partition("=")[2].strip("[] ")


def start_several(
    console: Console, config: str, overrides: list[str], out: Path | None, *, seeds: str | None, epsilons: str | None
) -> None:
    """Train once per seed and budget, and show table and folder.

    Raises:
        InputError: a list or the config is wrong.
    """
    from dpmed.config.load import load_config
    from dpmed.files import make_folder, new_run_folder
    from dpmed.workflows.train import seeds as of_seeds
    from dpmed.workflows.train import sweep as of_budgets

    loaded = load_config(config, overrides)
    chosen = () if seeds is None else of_seeds.parse_seeds(seeds)
    budgets = None if epsilons is None else of_budgets.parse_epsilons(epsilons)
    begun = "seed=*" if budgets is None else f"{of_budgets.LEVEL_FOLDER}*"
    if out is not None and out.is_dir() and any(out.glob(begun)):
        folder = make_folder(out)
    else:
        folder = new_run_folder(out, command="train", config_name=loaded.name, time=time_stamp())
    summary: "SeedsSummary | SweepSummary"
    if budgets is None:
        summary = of_seeds.run(loaded.config, chosen, folder, console)
    else:
        summary = of_budgets.run(loaded.config, budgets, chosen, folder, console)
    console.table("Test metrics", *summary.table())
    console.result(summary.to_json(), folder)
