"""The best of about N trainings: `dpmed train CONFIG --select N`.

The number of trials is drawn before the first one and kept, so that a resume never draws again: who draws until the
number pleases spends more than is stated. Each trial draws a seed of its own for weights and augmentation; the split is
the same in all. What ε protects, the training set, enters a trial's score by its model alone: the score is computed of
the validation split, of which ε says nothing, and so the ledger says.
"""

import csv
import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpmed.config.load import config_to_toml
from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.files import exclusive_lock, read_json, write_json
from dpmed.inference.ledger import LEDGER_FILE
from dpmed.inference.run_folder import SUMMARY_FILE
from dpmed.planning.enrolment import planned_mechanism
from dpmed.planning.plan import Plan, make_plan
from dpmed.planning.precision import with_settled_precision
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.selection import SelectionCost, draw_trials, selection_cost
from dpmed.privacy.several import composed_epsilon
from dpmed.progress import Progress
from dpmed.training.stopping import is_lower_better
from dpmed.workflows.train.composed_ledger import SEED_FOLDER, Spending, read_spendings
from dpmed.workflows.train.member import enrol_missing, finish, is_finished, with_training
from dpmed.workflows.train.repeats import LOCK_FILE

SELECTION_FILE, TRIAL_FOLDER = "selection.json", "trial="
_LARGEST_SEED = 2**32
_MOST_TRIALS = 1 << 20
CHOSEN_BY_VALIDATION = (
    "Validation scores, computed exactly, chose the best of several trials; ε says nothing of validation samples."
)
_KEEP = "How many trials there were, and all but the best of them, must stay secret: ε holds for the best one alone."
_INSIDE = f"{_KEEP} This file stays within your institution."


@dataclass(frozen=True, kw_only=True)
class SelectionSummary:
    """What a selection reached and cost.

    Attributes:
        folder: holds the trials.
        best: folder of the best one.
        metric: by which it was chosen, on the validation split.
        mean: N.
        scores: of all trials by the names of their folders; None where the metric is not defined.
        cost: of giving out the best, by both ways.
        epsilon_all: of all trials together, for who sees all of them.
        delta: δ.
        test: metrics of the best.
    """

    folder: Path
    best: Path
    metric: str
    mean: int
    scores: Mapping[str, float | None]
    cost: SelectionCost
    epsilon_all: float
    delta: float
    test: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The content of `selection.json`, but for what was drawn."""
        return {
            "folder": str(self.folder),
            "best": str(self.best),
            "main_metric": self.metric,
            "validation": dict(self.scores),
            "test": dict(self.test),
            "epsilon": self.cost.epsilon,
            "epsilon_select": self.cost.by_selection,
            "epsilon_plain": self.cost.by_composition,
            "epsilon_all_trials": self.epsilon_all,
            "delta": self.delta,
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for the terminal."""
        rows = [
            [name, "–" if score is None else f"{score:.4f}", "best" if self.best == self.folder / name else ""]
            for name, score in self.scores.items()
        ]
        return ["trial", f"validation {self.metric}", ""], rows

    def words(self) -> str:
        """What may be given out, and what it costs."""
        other = "cannot be computed" if self.cost.by_selection is None else f"{self.cost.by_selection:.4g}"
        verdict = _KEEP if self.cost.is_random else f"So {self.mean} trials were made, all of which ε covers."
        return (
            f"The best costs ε = {self.cost.epsilon:.4g} at δ = {self.delta:g}: by a random number of trials {other}, "
            f"by composition of {self.mean} {self.cost.by_composition:.4g}. {verdict}"
        )


@dataclass(frozen=True, kw_only=True)
class _Trial:
    name: str
    config: Config


def holds_selection(folder: Path) -> bool:
    """Whether a selection was begun in a folder."""
    return (folder / SELECTION_FILE).is_file()


def run(config: Config, folder: Path, progress: Progress, *, mean: int) -> SelectionSummary:
    """Draw the number of trials if that has not been done, make those that are missing, and choose the best.

    Args:
        config: of each trial but for the seed.
        folder: empty, or of the same selection.
        progress: tells the user.
        mean: N >= 2, the mean number of trials.

    Raises:
        InputError: the config is not private, its noise comes from a seed, or the folder holds another selection.
        RunError: as a single run.
    """
    config = _settled(config)
    plan = make_plan(config, progress)
    if plan.budget is None or plan.facts.source == "seeded":
        problem = "choosing at a stated cost needs a private config whose noise comes from the operating system"
        raise InputError(problem, where="privacy")
    mechanism, delta = planned_mechanism(plan), plan.budget.delta
    cost = selection_cost(mechanism, mean=mean, delta=delta)
    with exclusive_lock(folder / LOCK_FILE):
        drawn = _drawn(config, folder, mean=mean, is_random=cost.is_random)
        trials = [
            _Trial(
                name=f"{TRIAL_FOLDER}{number}/{SEED_FOLDER}{seed}",
                config=with_training(config, seed=seed),
            )
            for number, seed in enumerate(drawn["seeds"], start=1)
        ]
        enrol_missing([(trial.config, folder / trial.name) for trial in trials], progress)
        for trial in trials:
            if not is_finished(folder / trial.name):
                cost = _cost(folder, mechanism, mean=mean, delta=delta)
                _write_ledger(folder, plan, cost, mean=mean, delta=delta, status="running")
                progress.say(f"{trial.name}:")
                finish(trial.config, folder / trial.name, progress, prepare=_as_trial)
        cost = _cost(folder, mechanism, mean=mean, delta=delta)
        summary = _choose(trials, folder, plan.main_metric, cost, mean=mean, delta=delta)
        write_json(folder / SELECTION_FILE, {**drawn, **summary.to_json()})
        _write_ledger(folder, plan, cost, mean=mean, delta=delta, status="finished")
    return summary


def _settled(config: Config) -> Config:
    """The same split in all trials: a sample that one trains on must never judge another."""
    if config.data.split_seed is None:
        data = config.data.model_copy(update={"split_seed": config.training.seed})
        config = config.model_copy(update={"data": data})
    return with_settled_precision(config)


def _drawn(config: Config, folder: Path, *, mean: int, is_random: bool) -> dict[str, Any]:
    """How many trials, and their seeds: what the folder holds, or drawn now and on the disk before any trial."""
    identity = {
        "mean_trials": mean,
        "distribution": "geometric" if is_random else "fixed",
        "config_sha256": hashlib.sha256(config_to_toml(config).encode()).hexdigest(),
    }
    path = folder / SELECTION_FILE
    if path.is_file():
        content = read_json(path)
        if not isinstance(content, dict) or {name: content.get(name) for name in identity} != identity:
            problem = "holds a selection of another config, or with another mean number of trials"
            raise InputError(problem, where=str(folder), remedy="Choose another folder.")
        seeds = content.get("seeds")
        if not isinstance(seeds, list) or not 0 < len(seeds) <= _MOST_TRIALS or not all(map(_is_seed, seeds)):
            raise InputError("does not say which trials were drawn", where=str(path))
        return {**identity, "seeds": seeds, "stays_inside": _INSIDE}
    system = random.SystemRandom()
    trials = draw_trials(mean) if is_random else mean
    seeds = [system.randrange(_LARGEST_SEED) for _ in range(trials)]
    drawn = {**identity, "seeds": seeds, "stays_inside": _INSIDE}
    write_json(path, drawn)
    return drawn


def _is_seed(value: object) -> bool:
    return type(value) is int and 0 <= value < _LARGEST_SEED


def _as_trial(plan: Plan) -> Plan:
    """The plan whose ledger says what giving out the best of several costs, and how it was chosen."""
    note = (
        "This model is one of the trials of a selection. Who gives out the best of them spends the ε in privacy.json "
        f"of the folder that holds them, and not the ε that stands here. {_KEEP}"
    )
    facts = replace(plan.facts, notes=(*plan.facts.notes, note), outside=(*plan.facts.outside, CHOSEN_BY_VALIDATION))
    return replace(plan, facts=facts)


def _spendings(folder: Path) -> list[Spending]:
    found = [read_spendings(path) for path in sorted(folder.glob(f"{TRIAL_FOLDER}*")) if path.is_dir()]
    return [one for spendings in found for one in spendings.values()]


def _cost(folder: Path, planned: SampledGaussian, *, mean: int, delta: float) -> SelectionCost:
    """The cost of trials of the most draws that any has made: a crash may have cost one of them some more."""
    steps = max((one.steps for one in _spendings(folder)), default=0)
    worst = replace(planned, steps=max(steps, planned.steps))
    return selection_cost(worst, mean=mean, delta=delta)


def _choose(
    trials: Sequence[_Trial], folder: Path, metric: str, cost: SelectionCost, *, mean: int, delta: float
) -> SelectionSummary:
    scores = {trial.name: _score(folder / trial.name, metric, trial.config) for trial in trials}
    sign = -1.0 if is_lower_better(metric) else 1.0
    # Of equals the first: trials are alike in law, so that their order says nothing.
    best = max(scores, key=lambda name: _rank(scores[name], sign))
    together = composed_epsilon([one.mechanism for one in _spendings(folder)], delta)
    return SelectionSummary(
        folder=folder,
        best=folder / best,
        metric=metric,
        mean=mean,
        scores=scores,
        cost=cost,
        epsilon_all=together,
        delta=delta,
        test=dict(read_json(folder / best / SUMMARY_FILE)["test"]),
    )


def _rank(score: float | None, sign: float) -> float:
    return -math.inf if score is None else sign * score


def _score(path: Path, metric: str, config: Config) -> float | None:
    """The validation score of the weights that a trial kept: its last, or its best where early stopping keeps these."""
    with (path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "validation"]
    scores = [float(row[metric]) for row in rows if row.get(metric)]
    scores = [score for score in scores if math.isfinite(score)]
    if not scores or (config.training.early_stopping is None and not rows[-1].get(metric)):
        return None
    if config.training.early_stopping is None:
        return scores[-1]
    return min(scores) if is_lower_better(metric) else max(scores)


def _write_ledger(folder: Path, plan: Plan, cost: SelectionCost, *, mean: int, delta: float, status: str) -> None:
    """What giving out the best costs; says nothing of how many trials were drawn."""
    mechanism, facts = planned_mechanism(plan), plan.facts
    content = {
        "private": True,
        "status": status,
        "epsilon": cost.epsilon,
        "delta": delta,
        "accountant": "rdp" if cost.is_random else "pld",
        "epsilon_select": cost.by_selection,
        "epsilon_plain": cost.by_composition,
        "selection": {"distribution": "geometric" if cost.is_random else "fixed", "mean_trials": mean},
        "noise_multiplier": mechanism.noise_multiplier,
        "sampling_rate": mechanism.sampling_rate,
        "steps_planned": mechanism.steps,
        "adjacency": "add-or-remove-one",
        "unit_of_privacy": facts.unit,
        "noise_source": facts.source,
        "outside_accounting": [*facts.outside, CHOSEN_BY_VALIDATION],
        "notes": [*facts.notes, _KEEP] if cost.is_random else list(facts.notes),
        "version": version("dpmed"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(folder / LEDGER_FILE, content)
