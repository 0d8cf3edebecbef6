"""Several runs of `dpmed train`: over seeds, over budgets, or both."""

import math
from pathlib import Path

from dpmed.cli.shared.console import Console
from dpmed.errors import InputError

_LARGEST_SEED = 2**32
_FEWEST_TRIALS, _MOST_TRIALS = 2, 1000


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds from a comma list such as `10,11,100`.

    Raises:
        InputError: a part is not a seed, or a seed is given twice.
    """
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{text!r} is not a list of whole numbers such as 10,11,100", where="--seeds") from error
    if len(set(seeds)) < len(seeds) or not all(0 <= seed < _LARGEST_SEED for seed in seeds):
        raise InputError(f"{text!r} contains a seed twice, or one outside 0 to 2^32 - 1", where="--seeds")
    return seeds


def check_seed(seed: int) -> None:
    """Refuse a `--seed` that is none.

    Raises:
        InputError: it is outside the range of seeds.
    """
    if not 0 <= seed < _LARGEST_SEED:
        raise InputError(f"{seed} is outside 0 to 2^32 - 1", where="--seed")


def parse_epsilons(text: str) -> tuple[float, ...]:
    """Budgets from a comma list such as `1,8,20`.

    Raises:
        InputError: a part is not a finite number above 0, or one is given twice.
    """
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{text!r} is not a list of numbers such as 1,8,20", where="--epsilons") from error
    # Twice: with the same folder name.
    if len({f"{epsilon:g}" for epsilon in found}) < len(found) or not all(0 < epsilon < math.inf for epsilon in found):
        raise InputError(f"{text!r} contains an ε twice, or one that is not above 0", where="--epsilons")
    return found


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
    """Train once per seed and budget, and show the table, the cost and the folder.

    Raises:
        InputError: a list or the config is wrong.
    """
    from dpmed.config.load import load_config
    from dpmed.files import make_folder, new_run_folder
    from dpmed.workflows.train.several import repeats as workflow

    loaded = load_config(config, overrides)
    with loaded.locating():
        repeats = workflow.repeats_of(
            loaded.config,
            seeds=() if seeds is None else parse_seeds(seeds),
            epsilons=() if epsilons is None else parse_epsilons(epsilons),
        )
        if out is not None and workflow.holds_repeats(out):
            folder = make_folder(out)
        else:
            folder = new_run_folder(out, command="train", config_name=loaded.name)
        summary = workflow.run(repeats, folder, console)
    console.table("Test metrics", *summary.table())
    console.text(summary.cost())
    console.result(summary.to_json(), folder)


def start_selection(console: Console, config: str, overrides: list[str], out: Path | None, *, mean: int) -> None:
    """Train a random number of times, and show the best, its cost and the folder.

    Raises:
        InputError: the number or the config is wrong.
    """
    from dpmed.config.load import load_config
    from dpmed.files import make_folder, new_run_folder
    from dpmed.workflows.train.several import selection as workflow
    from dpmed.workflows.train.trials import holds_selection

    if not _FEWEST_TRIALS <= mean <= _MOST_TRIALS:
        raise InputError(f"must be a whole number from {_FEWEST_TRIALS} to {_MOST_TRIALS}", where=f"--select {mean}")
    loaded = load_config(config, overrides)
    with loaded.locating():
        if out is not None and holds_selection(out):
            folder = make_folder(out)
        else:
            folder = new_run_folder(out, command="train", config_name=loaded.name)
        summary = workflow.run(loaded.config, folder, console, mean=mean)
    console.table("Trials", *summary.table())
    console.text(summary.words())
    console.result(summary.to_json(), folder)
