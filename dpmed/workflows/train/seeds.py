"""One config over several seeds: runs what is missing, and ends with mean and standard deviation of each metric."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.figures.spread import plot_seeds
from dpmed.files import make_folder, read_json, write_csv, write_json
from dpmed.planning.plan import make_plan
from dpmed.planning.precision import with_settled_precision
from dpmed.progress import Progress
from dpmed.workflows.train import run as train
from dpmed.workflows.train import run_folder

SUMMARY_FILE = "seeds.json"
_LARGEST_SEED = 2**32


@dataclass(frozen=True, kw_only=True)
class SeedsSummary:
    """What the runs reached together.

    Attributes:
        folder: holds `seed=10` and so on, `seeds.csv`, `seeds.json` and the figure.
        tests: test metrics of each seed.
        epsilon: the largest ε that any run spent; None without privacy. Each run is a release of its own: who publishes
            several models of one data set spends their budgets together.
    """

    folder: Path
    tests: dict[int, dict[str, float]]
    epsilon: float | None

    def columns(self) -> dict[str, list[float]]:
        """For each metric its value in every run; a metric that is not defined in each of them is left out."""
        first, *others = self.tests.values()
        names = [name for name in first if all(name in test for test in others)]
        return {name: [test[name] for test in self.tests.values()] for name in names}

    def spread(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation (of the sample) of each metric; the latter NaN for a single seed."""
        columns = self.columns()
        return {
            name: (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan)
            for name, values in columns.items()
        }

    def to_json(self) -> dict[str, Any]:
        """The content of `seeds.json`."""
        spread = {name: {"mean": mean, "std": std} for name, (mean, std) in self.spread().items()}
        tests = {str(seed): test for seed, test in self.tests.items()}
        return {"folder": str(self.folder), "epsilon_per_run": self.epsilon, "test": spread, "seeds": tests}

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for the terminal."""
        names = list(self.spread())
        rows = [[str(seed), *(f"{test[name]:.4f}" for name in names)] for seed, test in self.tests.items()]
        rows.append(["mean ± std", *(f"{mean:.4f} ± {std:.4f}" for mean, std in self.spread().values())])
        return ["seed", *names], rows


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds from a comma list such as `10,11,100`.

    Raises:
        InputError: a part is no seed, or one stands there twice.
    """
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{text!r} is no list of whole numbers such as 10,11,100", where="--seeds") from error
    if len(set(seeds)) < len(seeds) or not all(0 <= seed < _LARGEST_SEED for seed in seeds):
        raise InputError(f"{text!r} holds a seed twice, or one that is not in 0 to 2^32 - 1", where="--seeds")
    return seeds


def run(config: Config, seeds: Sequence[int], folder: Path, progress: Progress) -> SeedsSummary:
    """Train once per seed; finished runs in `folder` are kept, broken ones are resumed.

    Raises:
        InputError: a run in the folder has another config.
    """
    config, summaries = with_settled_precision(config), {}
    for seed in seeds:
        progress.say(f"Seed {seed}:")
        training = config.training.model_copy(update={"seed": seed})
        summaries[seed] = _run_one(config.model_copy(update={"training": training}), folder / f"seed={seed}", progress)
    spent = [summary["epsilon"] for summary in summaries.values() if summary["epsilon"] is not None]
    found = SeedsSummary(
        folder=folder,
        tests={seed: dict(summary["test"]) for seed, summary in summaries.items()},
        epsilon=max(spent, default=None),
    )
    columns = ["seed", *dict.fromkeys(name for test in found.tests.values() for name in test)]
    write_csv(folder / "seeds.csv", [{"seed": seed, **test} for seed, test in found.tests.items()], columns)
    write_json(folder / SUMMARY_FILE, found.to_json())
    plot_seeds(found.columns(), folder)
    return found


def _run_one(config: Config, folder: Path, progress: Progress) -> dict[str, Any]:
    if not (folder / run_folder.CONFIG_FILE).is_file():
        train.run(make_plan(config, progress), make_folder(folder), progress)
    elif run_folder.load_run_config(folder) != config:
        remedy = "Choose another folder with --out."
        raise InputError("holds a run with another config", where=str(folder), remedy=remedy)
    elif not (folder / run_folder.SUMMARY_FILE).is_file():
        train.resume(folder, progress, plan=make_plan(config, progress))
    content: dict[str, Any] = read_json(folder / run_folder.SUMMARY_FILE)
    return content
