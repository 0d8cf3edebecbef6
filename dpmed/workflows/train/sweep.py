"""One config at several ε, with and without privacy: what privacy costs in accuracy, as table, CSV and figure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.figures.spread import plot_sweep
from dpmed.files import make_folder, write_csv, write_json
from dpmed.metrics.evaluate import main_metric
from dpmed.progress import Progress
from dpmed.workflows.train import seeds as several_seeds

NON_PRIVATE = "non-private"
LEVEL_FOLDER = "epsilon="


@dataclass(frozen=True, kw_only=True)
class SweepLevel:
    """The runs of one ε.

    Attributes:
        epsilon: None without privacy.
        runs: of every seed.
    """

    epsilon: float | None
    runs: several_seeds.SeedsSummary

    @property
    def name(self) -> str:
        """Its label."""
        return NON_PRIVATE if self.epsilon is None else f"{self.epsilon:g}"


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """What a sweep found.

    Attributes:
        folder: holds `epsilon=8` and so on, `non-private`, `sweep.csv`, `sweep.json` and the figure.
        metric: the main metric.
        levels: from the smallest ε on, the non-private one last.
    """

    folder: Path
    metric: str
    levels: tuple[SweepLevel, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of `sweep.json`."""
        levels = [{"epsilon": level.epsilon, **level.runs.to_json()} for level in self.levels]
        return {"folder": str(self.folder), "main_metric": self.metric, "levels": levels}

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for the terminal."""
        names = list(self.levels[0].runs.spread())
        rows = []
        for level in self.levels:
            spread = level.runs.spread()
            rows.append([level.name, *(_with_spread(*spread.get(name, (math.nan, math.nan))) for name in names)])
        return ["ε", *names], rows


def _with_spread(mean: float, spread: float) -> str:
    return f"{mean:.4f}" if math.isnan(spread) else f"{mean:.4f} ± {spread:.4f}"


def parse_epsilons(text: str) -> tuple[float, ...]:
    """Budgets from a comma list such as `1,8,20`.

    Raises:
        InputError: a part is no finite number above 0, or one stands there twice.
    """
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{text!r} is no list of numbers such as 1,8,20", where="--epsilons") from error
    if len(set(found)) < len(found) or not all(0 < epsilon < math.inf for epsilon in found):
        raise InputError(f"{text!r} holds an ε twice, or one that is not above 0", where="--epsilons")
    return found


def run(
    config: Config, epsilons: Sequence[float], seeds: Sequence[int], folder: Path, progress: Progress
) -> SweepSummary:
    """Train once per ε and seed, and without privacy; what `folder` holds already is kept.

    Args:
        config: with a `[privacy]` table whose ε is replaced.
        epsilons: budgets.
        seeds: of every level; none for the config's own.
        folder: where to write.
        progress: tells the user.

    Raises:
        InputError: the config has no privacy, or no fixed number of epochs to compare at.
    """
    privacy = config.privacy
    if privacy is None or config.training.epochs is None or privacy.max_reconstruction_risk is not None:
        remedy = "Use a config with [privacy] epsilon and [training] epochs."
        raise InputError("a sweep over ε needs a private config of a fixed length", where="--epsilons", remedy=remedy)
    chosen = tuple(seeds) or (config.training.seed,)
    levels = []
    for epsilon in [*sorted(epsilons), None]:
        name = NON_PRIVATE if epsilon is None else f"{LEVEL_FOLDER}{epsilon:g}"
        progress.say(f"{'Without privacy' if epsilon is None else f'ε = {epsilon:g}'}:")
        table = None if epsilon is None else privacy.model_copy(update={"epsilon": epsilon, "noise_multiplier": None})
        level = config.model_copy(update={"privacy": table})
        if epsilon is None and level.training.microbatch != "auto":
            # Sized for per-sample gradients; without privacy it would have to divide the batch.
            training = level.training.model_copy(update={"microbatch": "auto"})
            level = level.model_copy(update={"training": training})
        runs = several_seeds.run(level, chosen, make_folder(folder / name), progress)
        levels.append(SweepLevel(epsilon=epsilon, runs=runs))
    task_metric = config.evaluation.main_metric or _main_metric(levels[0].runs)
    summary = SweepSummary(folder=folder, metric=task_metric, levels=tuple(levels))
    _write(summary, config)
    return summary


def _main_metric(runs: several_seeds.SeedsSummary) -> str:
    names = next(iter(runs.tests.values()))
    mains = [main_metric(task) for task in ("classification", "segmentation", "reconstruction")]
    return next(name for name in mains if name in names)


def _write(summary: SweepSummary, config: Config) -> None:
    rows = [
        {"level": level.name, "epsilon": level.epsilon, "seed": seed, **test}
        for level in summary.levels
        for seed, test in level.runs.tests.items()
    ]
    columns = dict.fromkeys(name for row in rows for name in row)
    write_csv(summary.folder / "sweep.csv", rows, list(columns))
    write_json(summary.folder / "sweep.json", summary.to_json())
    values = {level.epsilon: _values(level, summary.metric) for level in summary.levels}
    private = [(epsilon, found) for epsilon, found in values.items() if epsilon is not None and found]
    if private:
        title = f"{config.data.name}, {config.model.name}"
        plot_sweep(private, values.get(None, []), summary.folder, metric=summary.metric, title=title)


def _values(level: SweepLevel, metric: str) -> list[float]:
    return [test[metric] for test in level.runs.tests.values() if metric in test]
