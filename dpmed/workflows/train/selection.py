"""The best of about N trainings: `dpmed train CONFIG --select N`, and of N settings, `--tune N`.

The number of trials is drawn before the first one and kept, so a resume never draws again: drawing until the number
pleases would spend more than is stated. Each trial draws its own seed for weights and augmentation; the split is the
same in all. What ε protects, the training set, enters a trial's score only through its model: the score is computed on
the validation split, about which ε says nothing, as the ledger states.

Where settings are tuned, their list follows from public facts and is on disk before any trial; each trial draws its
setting uniformly and independently, from the operating system's entropy. Where composition costs less, each is tried
once.
"""

import csv
import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpmed.config.load import config_to_toml
from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.files import exclusive_lock, read_json, write_csv, write_json
from dpmed.inference.ledger import LEDGER_FILE
from dpmed.inference.run_folder import SUMMARY_FILE
from dpmed.planning.advice.suggestion import Setting
from dpmed.planning.enrolment import planned_mechanism
from dpmed.planning.plan import Plan, gather, plan_of
from dpmed.planning.precision import with_settled_precision
from dpmed.planning.run_ledger import BEST_ALONE, CHOSEN_BY_VALIDATION, with_selection
from dpmed.privacy.ledger import OUTSIDE_EVERY_RUN, Selected
from dpmed.privacy.mechanism import Mechanisms
from dpmed.privacy.selection import SelectionCost, draw_trials, tuning_cost
from dpmed.privacy.several import composed_epsilon
from dpmed.progress import Progress
from dpmed.training.stopping import is_lower_better
from dpmed.workflows.train.composed_ledger import SEED_FOLDER, Spending, read_spendings
from dpmed.workflows.train.member import enrol_missing, finish, is_finished, with_training
from dpmed.workflows.train.repeats import LOCK_FILE
from dpmed.workflows.train.run_folder import TRIAL_FOLDER

SELECTION_FILE, TRIALS_FILE = "selection.json", "trials.csv"
_LARGEST_SEED = 2**32
_MOST_TRIALS = 1 << 20
_INSIDE = f"{BEST_ALONE} This file must stay within your institution."


@dataclass(frozen=True, kw_only=True)
class SelectionSummary:
    """The results of a selection and its cost.

    Attributes:
        folder: the folder that holds the trials.
        best: the folder of the best one.
        metric: the metric that chose it, on the validation split.
        mean: N.
        scores: of all trials, by the names of their folders; None where the metric is undefined.
        cost: the cost of releasing the best, computed both ways.
        epsilon_all: ε of all trials together, for anyone who sees all of them.
        delta: δ.
        test: test metrics of the best.
        settings: of all trials, by the names of their folders, if settings are tuned; otherwise empty.
        overrides: `KEY=VALUE` of the best one's setting.
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
    settings: Mapping[str, Setting]
    overrides: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of `selection.json`, except what was drawn."""
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
            **({"tuned_on": "training data", "set": list(self.overrides)} if self.settings else {}),
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for the terminal."""
        rows = [
            [
                name,
                *(f"{value:g}" for value in (self.settings[name].values() if self.settings else {}).values()),
                "–" if score is None else f"{score:.4f}",
                "best" if self.best == self.folder / name else "",
            ]
            for name, score in self.scores.items()
        ]
        tuned = [name.replace("_", " ") for one in [*self.settings.values()][:1] for name in one.values()]
        return ["trial", *tuned, f"validation {self.metric}", ""], rows

    def words(self) -> str:
        """What may be released, and what it costs."""
        other = "cannot be computed" if self.cost.by_selection is None else f"{self.cost.by_selection:.4g}"
        verdict = BEST_ALONE if self.cost.is_random else f"So {self.mean} trials were made, and ε covers all of them."
        tuned = "Settings were tried on the training data itself, which costs ε. " if self.settings else ""
        return (
            f"{tuned}The best costs ε = {self.cost.epsilon:.4g} at δ = {self.delta:g}: by a random number of trials "
            f"{other}, by composition of {self.mean} {self.cost.by_composition:.4g}. {verdict}"
        )


@dataclass(frozen=True, kw_only=True)
class _Trial:
    name: str
    config: Config
    candidate: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidates:
    """What trials are drawn from: a single config, or one per setting; fixed before anything is drawn."""

    base: Config
    configs: tuple[Config, ...]
    plans: tuple[Plan, ...]
    settings: tuple[Setting, ...]
    mean: int
    delta: float

    def mechanisms(self, *, extra_steps: int = 0) -> Mechanisms:
        """All steps of N trainings, among which selection draws."""
        planned = [planned_mechanism(plan) for plan in self.plans]
        longer = tuple(replace(one, steps=one.steps + extra_steps) for one in planned)
        return longer if self.settings else longer * self.mean

    def cost(self, *, extra_steps: int = 0) -> SelectionCost:
        """The cost of releasing the best."""
        return tuning_cost(self.mechanisms(extra_steps=extra_steps), delta=self.delta)


def holds_selection(folder: Path) -> bool:
    """Whether a selection was begun in a folder."""
    return (folder / SELECTION_FILE).is_file()


def run(
    config: Config, folder: Path, progress: Progress, *, mean: int, settings: Sequence[Setting] = ()
) -> SelectionSummary:
    """Draw the number of trials unless it has been drawn, make the missing ones, and choose the best.

    Args:
        config: the config of each trial, except for the seed.
        folder: an empty one, or that of the same selection.
        progress: reports to the user.
        mean: N >= 2, the mean number of trials; of settings, their number takes its place.
        settings: N settings to choose among, made from public facts alone; empty to vary only the seed.

    Raises:
        InputError: the config is not private, its noise comes from a seed, or the folder holds another selection.
        RunError: as for a single run.
    """
    candidates = _candidates(_settled(config), progress, mean=len(settings) or mean, settings=settings)
    with exclusive_lock(folder / LOCK_FILE):
        drawn = _drawn(candidates, folder)
        trials = [
            _Trial(
                name=f"{TRIAL_FOLDER}{number}/{SEED_FOLDER}{seed}",
                config=with_training(candidates.configs[candidate], seed=seed),
                candidate=candidate,
            )
            for number, (seed, candidate) in enumerate(zip(drawn["seeds"], drawn["candidates"], strict=True), start=1)
        ]
        enrol_missing([(trial.config, folder / trial.name) for trial in trials], progress)
        for trial in trials:
            if not is_finished(folder / trial.name):
                _write_ledger(folder, candidates, _cost(folder, candidates, trials), status="running")
                progress.say(f"{trial.name}:")
                finish(trial.config, folder / trial.name, progress, prepare=partial(_as_trial, candidates))
        cost = _cost(folder, candidates, trials)
        summary = _choose(trials, folder, candidates, cost)
        write_json(folder / SELECTION_FILE, {**drawn, **summary.to_json()})
        _write_trials(summary)
        for trial in trials:
            _bind(folder / trial.name, cost, chosen=folder / trial.name == summary.best)
            if folder / trial.name == summary.best:
                _write_ledger(folder, candidates, cost, status="finished", best=trial)
    return summary


def _candidates(config: Config, progress: Progress, *, mean: int, settings: Sequence[Setting]) -> _Candidates:
    gathered = gather(config, progress)
    configs = tuple(setting.applied(config) for setting in settings) or (config,)
    plans = tuple(plan_of(replace(gathered, config=one)) for one in configs)
    budget = plans[0].budget
    if budget is None or plans[0].facts.source == "seeded":
        problem = "choosing at a stated cost needs a private config whose noise comes from the operating system"
        raise InputError(problem, where="privacy")
    return _Candidates(
        base=config, configs=configs, plans=plans, settings=tuple(settings), mean=mean, delta=budget.delta
    )


def _settled(config: Config) -> Config:
    """The config with the same split in all trials: a sample that one trains on must never judge another."""
    if config.data.split_seed is None:
        data = config.data.model_copy(update={"split_seed": config.training.seed})
        config = config.model_copy(update={"data": data})
    return with_settled_precision(config)


def _drawn(candidates: _Candidates, folder: Path) -> dict[str, Any]:
    """The number of trials, their seeds and settings: from the folder, or drawn now and on disk before any trial."""
    cost, count = candidates.cost(), len(candidates.configs)
    text = "\n".join(map(config_to_toml, candidates.configs))
    identity = {
        "mean_trials": candidates.mean,
        "distribution": cost.distribution,
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "settings": [asdict(setting) for setting in candidates.settings],
    }
    path = folder / SELECTION_FILE
    if path.is_file():
        content = read_json(path)
        if isinstance(content, dict) and isinstance(content.get("seeds"), list):
            # As written by versions that tuned no settings.
            content = {"settings": [], "candidates": [0] * len(content["seeds"]), **content}
        if not isinstance(content, dict) or {name: content.get(name) for name in identity} != identity:
            problem = "holds a selection of another config, or with another mean number of trials"
            raise InputError(problem, where=str(folder), remedy="Choose another folder.")
        kept = {name: content.get(name) for name in ("seeds", "candidates")}
        if not _is_draw(kept["seeds"], kept["candidates"], count=count):
            raise InputError("does not say which trials were drawn", where=str(path))
        return {**identity, **kept, "stays_inside": _INSIDE}
    system = random.SystemRandom()
    trials = draw_trials(candidates.mean) if cost.is_random else candidates.mean
    # Uniform and independent where their number is random, as the theorem requires; otherwise each once.
    chosen = [system.randrange(count) if cost.is_random else number % count for number in range(trials)]
    seeds = [system.randrange(_LARGEST_SEED) for _ in range(trials)]
    drawn = {**identity, "seeds": seeds, "candidates": chosen, "stays_inside": _INSIDE}
    write_json(path, drawn)
    return drawn


def _is_draw(seeds: object, candidates: object, *, count: int) -> bool:
    """Whether a file's lists are seeds and numbers of candidates."""
    if not isinstance(seeds, list) or not isinstance(candidates, list):
        return False
    if not 0 < len(seeds) <= _MOST_TRIALS or len(candidates) != len(seeds):
        return False
    return all(_is_below(_LARGEST_SEED, one) for one in seeds) and all(_is_below(count, one) for one in candidates)


def _is_below(end: int, value: object) -> bool:
    return type(value) is int and 0 <= value < end


def _as_trial(candidates: _Candidates, plan: Plan) -> Plan:
    """The plan, whose ledger then states what releasing the best costs, and not its own training alone."""
    cost = candidates.cost()
    selected = Selected(distribution=cost.distribution, mean_trials=candidates.mean, epsilon=cost.epsilon)
    return replace(plan, facts=with_selection(plan.facts, selected))


def _bind(path: Path, cost: SelectionCost, *, chosen: bool) -> None:
    """Write into a finished trial's ledger what the selection cost in the end, and whether it chose this trial."""
    ledger = read_json(path / LEDGER_FILE)
    selection = {**ledger["selection"], "epsilon": cost.epsilon, "chosen": chosen}
    epsilon = max(ledger["epsilon"], cost.epsilon)
    write_json(path / LEDGER_FILE, {**ledger, "epsilon": epsilon, "selection": selection})


def _spendings(folder: Path, trial: _Trial) -> list[Spending]:
    path = (folder / trial.name).parent
    return list(read_spendings(path).values()) if path.is_dir() else []


def _cost(folder: Path, candidates: _Candidates, trials: Sequence[_Trial]) -> SelectionCost:
    """The cost, as if every trial had made as many extra draws as the worst of them: a crash can cause extra draws."""
    extra = 0
    for trial in trials:
        planned = planned_mechanism(candidates.plans[trial.candidate]).steps
        extra = max([extra, *(one.steps - planned for one in _spendings(folder, trial))])
    # The number was drawn, or not, before anything was spent: what costs less by now no longer matters.
    return replace(candidates.cost(extra_steps=extra), drawn=candidates.cost().is_random)


def _choose(trials: Sequence[_Trial], folder: Path, candidates: _Candidates, cost: SelectionCost) -> SelectionSummary:
    metric = candidates.plans[0].main_metric
    scores = {trial.name: validation_score(folder / trial.name, metric, trial.config) for trial in trials}
    best = best_of(scores, metric)
    spent = [one.mechanism for trial in trials for one in _spendings(folder, trial)]
    settings = {trial.name: candidates.settings[trial.candidate] for trial in trials} if candidates.settings else {}
    return SelectionSummary(
        folder=folder,
        best=folder / best,
        metric=metric,
        mean=candidates.mean,
        scores=scores,
        cost=cost,
        epsilon_all=composed_epsilon(spent, candidates.delta),
        delta=candidates.delta,
        test=dict(read_json(folder / best / SUMMARY_FILE)["test"]),
        settings=settings,
        overrides=settings[best].overrides(candidates.base) if settings else (),
    )


def best_of(scores: Mapping[str, float | None], metric: str) -> str:
    """The name of the best score, or the first of equals: trials are equal in distribution, so order says nothing."""
    sign = -1.0 if is_lower_better(metric) else 1.0
    return max(scores, key=lambda name: _rank(scores[name], sign))


def _rank(score: float | None, sign: float) -> float:
    return -math.inf if score is None else sign * score


def validation_score(path: Path, metric: str, config: Config) -> float | None:
    """The validation score of the weights that a trial kept: its last, or its best if early stopping keeps those.

    Args:
        path: the folder of a finished trial.
        metric: the metric by which trials are chosen.
        config: the config of the trial.

    Returns:
        The score; None where the metric is undefined.
    """
    with (path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "validation"]
    scores = [float(row[metric]) for row in rows if row.get(metric)]
    scores = [score for score in scores if math.isfinite(score)]
    if not scores or (config.training.early_stopping is None and not rows[-1].get(metric)):
        return None
    if config.training.early_stopping is None:
        return scores[-1]
    return min(scores) if is_lower_better(metric) else max(scores)


def _write_trials(summary: SelectionSummary) -> None:
    """A row per trial; the file must stay inside, like everything that tells how many there were."""
    if summary.settings:
        rows = [
            {"trial": name, **summary.settings[name].values(), f"validation_{summary.metric}": score}
            for name, score in summary.scores.items()
        ]
        write_csv(summary.folder / TRIALS_FILE, rows, list(rows[0]))


def _write_ledger(
    folder: Path, candidates: _Candidates, cost: SelectionCost, *, status: str, best: _Trial | None = None
) -> None:
    """State what releasing the best costs; names the best alone, and does not tell how many trials were drawn."""
    number = 0 if best is None else best.candidate
    facts, is_tuned = candidates.plans[number].facts, bool(candidates.settings)
    # Which setting was chosen may be told: it is part of what the selection releases.
    told = None if is_tuned and best is None else candidates.mechanisms()[number]
    chosen = None if best is None else number
    tuned = {"settings": [asdict(setting) for setting in candidates.settings], "chosen_setting": chosen}
    # At the end the time of the best trial's own ledger: another one would tell how long the trials after it took.
    created = datetime.now(UTC).isoformat(timespec="seconds")
    if best is not None:
        created = read_json(folder / best.name / LEDGER_FILE)["created"]
    content = {
        "private": True,
        "status": status,
        "epsilon": cost.epsilon,
        "delta": candidates.delta,
        "accountant": "rdp" if cost.is_random else "pld",
        "epsilon_select": cost.by_selection,
        "epsilon_plain": cost.by_composition,
        "selection": {
            "distribution": cost.distribution,
            "mean_trials": candidates.mean,
            **(tuned if is_tuned else {}),
        },
        "noise_multiplier": told and told.noise_multiplier,
        "sampling_rate": told and told.sampling_rate,
        "steps_planned": told and told.steps,
        "adjacency": "add-or-remove-one",
        "unit_of_privacy": facts.unit,
        "noise_source": facts.source,
        "outside_accounting": [*OUTSIDE_EVERY_RUN, *facts.outside, CHOSEN_BY_VALIDATION],
        "notes": [*facts.notes, BEST_ALONE] if cost.is_random else list(facts.notes),
        "version": version("dpmed"),
        "created": created,
    }
    write_json(folder / LEDGER_FILE, content)
