"""One config run several times: over seeds, over ε plus a run without privacy, or both.

Missing runs are made, interrupted ones are resumed, finished ones are kept. Before a run begins, the folder's ledger
counts it with all its planned steps, so the ledger never claims less than was spent.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.figures.spread import plot_seeds, plot_sweep
from dpmed.files import exclusive_lock, read_json, write_csv, write_json
from dpmed.inference.composed_ledger import (
    LEVEL_FOLDER,
    NON_PRIVATE,
    SEED_FOLDER,
    ComposedLedger,
    Spending,
    compose,
    read_deleted,
    read_spendings,
    spending,
)
from dpmed.inference.ledger import LEDGER_FILE
from dpmed.inference.run_folder import SUMMARY_FILE
from dpmed.planning.plan import Plan
from dpmed.planning.precision import with_settled_precision
from dpmed.planning.run_ledger import run_ledger, with_siblings
from dpmed.progress import Progress
from dpmed.rounding import stated_budget
from dpmed.workflows.train.several.member import complete, enrol_missing, with_training
from dpmed.workflows.train.siblings import LOCK_FILE, name_siblings, require_outermost


@dataclass(frozen=True, kw_only=True, eq=False)
class Repeat:
    """One of several runs.

    Attributes:
        level: the folder of its ε below the common folder; empty where ε is not varied.
        epsilon: the ε that was asked for; None where it is not varied, and without privacy.
        seed: the seed of the run.
        config: the config of the run.
    """

    level: str
    epsilon: float | None
    seed: int
    config: Config

    @property
    def name(self) -> str:
        """Its folder below the common folder."""
        return f"{self.level}/{SEED_FOLDER}{self.seed}" if self.level else f"{SEED_FOLDER}{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Level:
    """The results of the runs at one ε, over their seeds.

    Attributes:
        folder: the folder that holds `seed=10` and so on, `seeds.csv`, `seeds.json` and the figure.
        epsilon: the ε that was asked for; None where it was not varied, and without privacy.
        tests: test metrics of each seed.
        largest_spent: the largest ε that any one of the runs spent; None without privacy.
    """

    folder: Path
    epsilon: float | None
    tests: Mapping[int, Mapping[str, float]]
    largest_spent: float | None

    @property
    def name(self) -> str:
        """Its label in a sweep."""
        return NON_PRIVATE if self.epsilon is None else f"{self.epsilon:g}"

    def columns(self) -> dict[str, list[float]]:
        """For each metric, its value in every run; a metric that is undefined in any of them is left out."""
        first, *others = self.tests.values()
        names = [name for name in first if all(name in test for test in others)]
        return {name: [test[name] for test in self.tests.values()] for name in names}

    def spread(self) -> dict[str, tuple[float, float]]:
        """Mean and sample standard deviation of each metric; the latter is NaN for a single seed."""
        return {
            name: (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan)
            for name, values in self.columns().items()
        }

    def to_json(self) -> dict[str, Any]:
        """The level as JSON types."""
        spread = {name: {"mean": mean, "std": std} for name, (mean, std) in self.spread().items()}
        tests = {str(seed): dict(test) for seed, test in self.tests.items()}
        return {"folder": str(self.folder), "epsilon_per_run": self.largest_spent, "test": spread, "seeds": tests}


@dataclass(frozen=True, kw_only=True)
class RepeatsSummary:
    """The results of all runs and what they cost together.

    Attributes:
        folder: the folder that holds them.
        levels: in the order of ε, the one without privacy last; a single one where ε is not varied.
        is_sweep: whether ε is varied.
        metric: the main metric.
        composed: what all runs in the folder spend together.
    """

    folder: Path
    levels: tuple[Level, ...]
    is_sweep: bool
    metric: str
    composed: ComposedLedger

    def to_json(self) -> dict[str, Any]:
        """The content of `sweep.json`, or of `seeds.json` where ε is not varied."""
        cost = {
            "epsilon_composed": self.composed.epsilon,
            "delta": self.composed.delta,
            "runs_composed": sum(run.is_private for run in self.composed.runs),
        }
        if not self.is_sweep:
            return {**self.levels[0].to_json(), **cost}
        levels = [{"epsilon": level.epsilon, **level.to_json()} for level in self.levels]
        return {"folder": str(self.folder), "main_metric": self.metric, **cost, "levels": levels}

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for the terminal."""
        names = list(self.levels[0].spread())
        missing = (math.nan, math.nan)
        rows = []
        for level in self.levels:
            spread = level.spread()
            if not self.is_sweep:
                rows += [[str(seed), *(f"{test[name]:.4f}" for name in names)] for seed, test in level.tests.items()]
            label = level.name if self.is_sweep else "mean ± std"
            rows.append([label, *(_with_spread(*spread.get(name, missing)) for name in names)])
        return ["ε" if self.is_sweep else "seed", *names], rows

    def cost(self) -> str:
        """What the runs spend together, in words."""
        composed = self.composed
        count = sum(run.is_private for run in composed.runs)
        if composed.epsilon is None or composed.delta is None:
            return "None of these runs is private: keep all of them within your institution."
        spent = stated_budget(composed.epsilon, composed.delta)
        gone = composed.deleted
        if count == 1:
            return f"The one private run in this folder{' (deleted)' if gone else ''} spends {spent}."
        them = f"private runs in this folder, {gone} of which {'was' if gone == 1 else 'were'} deleted," if gone else ""
        return (
            f"Together the {count} {them or 'private runs in this folder'} spend {spent}. That is the cost of choosing "
            "the best of them, or of releasing several."
        )


def holds_repeats(folder: Path) -> bool:
    """Whether several runs were begun in a folder, so more may be added; an empty folder holds none."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    begun = [name for name in names if name.startswith((SEED_FOLDER, LEVEL_FOLDER)) or name == NON_PRIVATE]
    return bool(begun) or names == {LOCK_FILE}


def repeats_of(config: Config, *, seeds: Sequence[int] = (), epsilons: Sequence[float] = ()) -> tuple[Repeat, ...]:
    """The runs of one config over seeds and ε, level by level.

    Args:
        config: the config, whose seed and ε are replaced.
        seeds: for every level; empty for the config's own.
        epsilons: one level each, followed by one without privacy; empty to leave the config's privacy unchanged.

    Raises:
        InputError: ε is to be varied, but the config has no privacy, or no fixed number of epochs to compare at.
    """
    config = with_settled_precision(config)
    levels = [("", None, config)] if not epsilons else _levels(config, epsilons)
    return tuple(
        Repeat(level=name, epsilon=epsilon, seed=seed, config=with_training(level, seed=seed))
        for name, epsilon, level in levels
        for seed in seeds or (config.training.seed,)
    )


def run(repeats: Sequence[Repeat], folder: Path, progress: Progress) -> RepeatsSummary:
    """Make the missing ones of several runs, and summarise all of them.

    Args:
        repeats: of one config, as returned by `repeats_of`.
        folder: the folder that holds them, and perhaps runs of earlier calls.
        progress: reports to the user.

    Raises:
        InputError: a run in the folder has another config or a damaged ledger.
        RunError: as for a single run.
    """
    require_outermost(folder)
    names = [repeat.name for repeat in repeats]
    with exclusive_lock(folder / LOCK_FILE):
        # Which runs were deleted, before others take their places.
        _note_changes(folder)
        enrol_missing([(repeat.config, folder / repeat.name) for repeat in repeats], progress)
        for repeat in repeats:
            progress.say(f"{repeat.name}:")
            counted = partial(_counted, repeat=repeat, folder=folder, names=names)
            try:
                complete(repeat.config, folder / repeat.name, progress, prepare=counted)
            except BaseException:
                # Whatever ended it, Ctrl-C included: what has begun is no longer only planned. The error goes on.
                _note_changes(folder)
                raise
        found = read_spendings(folder)
        name_siblings(folder, found, names)
        composed = _write_composed(folder, found)
    summary = _sum_up(repeats, folder, composed)
    _write(summary, repeats[0].config)
    return summary


def _levels(config: Config, epsilons: Sequence[float]) -> list[tuple[str, float | None, Config]]:
    privacy = config.privacy
    if privacy is None or config.training.epochs is None or privacy.max_reconstruction_risk is not None:
        remedy = "Use a config that sets privacy.epsilon and training.epochs."
        raise InputError("a sweep over ε needs a private config with a fixed length", where="epsilons", remedy=remedy)
    levels: list[tuple[str, float | None, Config]] = []
    for epsilon in sorted(epsilons):
        table = privacy.model_copy(update={"epsilon": epsilon, "noise_multiplier": None})
        levels.append((f"{LEVEL_FOLDER}{epsilon:g}", epsilon, config.model_copy(update={"privacy": table})))
    # The microbatch is sized for per-sample gradients; without privacy it would have to divide the batch.
    without = with_training(config.model_copy(update={"privacy": None}), microbatch="auto")
    return [*levels, (NON_PRIVATE, None, without)]


def _counted(plan: Plan, repeat: Repeat, folder: Path, names: Sequence[str]) -> Plan:
    """The plan that names its siblings, once the folder's ledger counts it."""
    found = read_spendings(folder)
    others = sorted({*names, *found} - {repeat.name})
    plan = replace(plan, facts=with_siblings(plan.facts, others))
    name_siblings(folder, found, names)
    _write_composed(folder, found, (repeat.name, plan))
    return plan


def _write_composed(
    folder: Path, found: Mapping[str, Spending], begun: tuple[str, Plan] | None = None
) -> ComposedLedger:
    """Write the folder's ledger: the runs found in it, one that is about to begin, and those that were deleted."""
    spendings, deleted = dict(found), read_deleted(folder, found)
    if begun is not None:
        name, plan = begun
        planned = run_ledger(plan, draws=plan.steps, status="planned").to_json()
        known = spendings.get(name) or spending(name, planned, where=name)
        spendings[name] = replace(known, steps=max(known.steps, plan.steps))
    composed = compose([*spendings.values(), *deleted])
    write_json(folder / LEDGER_FILE, composed.to_json())
    return composed


def _note_changes(folder: Path) -> None:
    """Bring the folder's ledger up to date, if there is one and it does not list the runs as they are by now."""
    found, path = read_spendings(folder), folder / LEDGER_FILE
    if not path.is_file():
        return
    runs = sorted([*found.values(), *read_deleted(folder, found)], key=lambda run: run.name)
    # Composing takes far longer than reading.
    if runs and [run.to_json() for run in runs] != read_json(path).get("runs"):
        _write_composed(folder, found)


def _sum_up(repeats: Sequence[Repeat], folder: Path, composed: ComposedLedger) -> RepeatsSummary:
    summaries = {repeat.name: read_json(folder / repeat.name / SUMMARY_FILE) for repeat in repeats}
    levels = []
    for name in dict.fromkeys(repeat.level for repeat in repeats):
        found = {repeat.seed: summaries[repeat.name] for repeat in repeats if repeat.level == name}
        spent = [summary["epsilon"] for summary in found.values() if summary["epsilon"] is not None]
        levels.append(
            Level(
                folder=folder / name,
                epsilon=next(repeat.epsilon for repeat in repeats if repeat.level == name),
                tests={seed: dict(summary["test"]) for seed, summary in found.items()},
                largest_spent=max(spent, default=None),
            )
        )
    return RepeatsSummary(
        folder=folder,
        levels=tuple(levels),
        is_sweep=any(repeat.level for repeat in repeats),
        metric=summaries[repeats[0].name]["main_metric"],
        composed=composed,
    )


def _write(summary: RepeatsSummary, config: Config) -> None:
    for level in summary.levels:
        rows = [{"seed": seed, **test} for seed, test in level.tests.items()]
        write_csv(level.folder / "seeds.csv", rows)
        write_json(level.folder / "seeds.json", level.to_json() if summary.is_sweep else summary.to_json())
        plot_seeds(level.columns(), level.folder)
    if summary.is_sweep:
        _write_sweep(summary, title=f"{config.data.name}, {config.model.name}")


def _write_sweep(summary: RepeatsSummary, *, title: str) -> None:
    rows = [
        {"level": level.name, "epsilon": level.epsilon, "seed": seed, **test}
        for level in summary.levels
        for seed, test in level.tests.items()
    ]
    write_csv(summary.folder / "sweep.csv", rows)
    write_json(summary.folder / "sweep.json", summary.to_json())
    values = {
        level.epsilon: [test[summary.metric] for test in level.tests.values() if summary.metric in test]
        for level in summary.levels
    }
    private = [(epsilon, found) for epsilon, found in values.items() if epsilon is not None and found]
    if private:
        plot_sweep(private, values.get(None, []), summary.folder, metric=summary.metric, title=title)


def _with_spread(mean: float, spread: float) -> str:
    return f"{mean:.4f}" if math.isnan(spread) else f"{mean:.4f} ± {spread:.4f}"
