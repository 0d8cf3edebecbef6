"""The best of about N trainings: `dpmed train CONFIG --select N`, and of N settings, `--tune N`.

The number of trials is drawn before the first one and kept, so a resume never draws again. Each trial draws its own
seed for weights and augmentation; the split is the same in all. What ε protects, the training set, enters a trial's
score only through its model: the score is computed on the validation split, about which ε says nothing, as the ledger
states.

Where settings are tuned, their list follows from public facts and is on disk before any trial; each trial draws its
setting uniformly and independently, from the operating system's entropy. Where composition costs less, each is tried
once.

Deleting a trial that has begun takes nothing back. Where their number is random, none can be made twice, since the cost
holds only for the number that was drawn; where it is fixed, a trial in the place of another counts beside it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpmed.config.load import config_to_toml
from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.files import exclusive_lock, read_json, utc_now, write_json
from dpmed.inference.composed_ledger import SEED_FOLDER, Spending, spending
from dpmed.inference.ledger import LEDGER_FILE
from dpmed.inference.run_folder import SUMMARY_FILE
from dpmed.planning.advice.suggestion import Setting
from dpmed.planning.plan import Plan, gather, plan_of
from dpmed.planning.precision import with_settled_precision
from dpmed.planning.run_ledger import BEST_ALONE, CHOSEN_BY_VALIDATION, with_selection, with_selection_note
from dpmed.privacy.ledger import ADJACENCY, OUTSIDE_EVERY_RUN, Selected
from dpmed.privacy.mechanism import Mechanisms
from dpmed.privacy.selection import SelectionCost, tuning_cost
from dpmed.privacy.several import composed_epsilon
from dpmed.progress import Progress
from dpmed.rounding import rounded_up, stated_budget
from dpmed.workflows.train.several.drawn_trials import DrawnTrials, drawn_trials
from dpmed.workflows.train.several.member import complete, enrol_missing, is_finished, with_training
from dpmed.workflows.train.siblings import LOCK_FILE
from dpmed.workflows.train.trials import (
    SELECTION_FILE,
    TRIAL_FOLDER,
    best_of,
    deleted_trials,
    keep_begun,
    trials_table,
    validation_score,
    write_trials,
)


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
        deleted: the number of trials that had begun and are no longer there; their cost is included.
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
    deleted: int
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
            "trials_deleted": self.deleted,
            "delta": self.delta,
            **({"tuned_on": "training data", "set": list(self.overrides)} if self.settings else {}),
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for the terminal."""
        return trials_table(self.settings, self.scores, self.metric, self.best.relative_to(self.folder).as_posix())

    def words(self) -> str:
        """What may be released, and what it costs."""
        plain, random_number = rounded_up(self.cost.by_composition), self.cost.by_selection
        verdict = BEST_ALONE
        if self.cost.is_random:
            details = f"for a random number of trials; exactly {self.mean} would cost {plain}."
        else:
            details = f"for exactly {self.mean} trials"
            if self.deleted:
                details += f" and {self.deleted} more, now deleted"
            elif random_number is not None:
                details += f"; a random number of them would cost {rounded_up(random_number)}"
            details, verdict = f"{details}.", "ε covers all of them."
        tuned = "Settings were tried on the training data itself, which costs ε. " if self.settings else ""
        return f"{tuned}The best costs {stated_budget(self.cost.epsilon, self.delta)} {details} {verdict}"


@dataclass(frozen=True, kw_only=True)
class _Trial:
    name: str
    config: Config
    candidate: int


@dataclass(frozen=True, kw_only=True)
class _Spent:
    """What the selection costs, trials that were deleted included."""

    cost: SelectionCost
    deleted: tuple[Spending, ...]

    def selected(self, mean: int, *, chosen: bool = False) -> Selected:
        """What a trial's ledger says of a selection among `mean` trials, or that many on average."""
        distribution, made = self.cost.distribution, mean + len(self.deleted)
        count = mean if distribution == "geometric" else made
        return Selected(distribution=distribution, mean_trials=count, epsilon=self.cost.epsilon, chosen=chosen)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidates:
    """What trials are drawn from: a single config, or one per setting; fixed before anything is drawn."""

    base: Config
    configs: tuple[Config, ...]
    plans: tuple[Plan, ...]
    planned: Mechanisms
    settings: tuple[Setting, ...]
    mean: int
    delta: float

    def mechanisms(self, *, extra_steps: int = 0) -> Mechanisms:
        """All steps of N trainings, among which selection draws."""
        longer = tuple(replace(one, steps=one.steps + extra_steps) for one in self.planned)
        return longer if self.settings else longer * self.mean

    def cost(self, *, extra_steps: int = 0) -> SelectionCost:
        """The cost of releasing the best."""
        return tuning_cost(self.mechanisms(extra_steps=extra_steps), delta=self.delta)


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
        InputError: the config is not private, its noise comes from a seed, the folder holds another selection, or of a
            random number of trials one has begun and is gone.
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
            for number, (seed, candidate) in enumerate(zip(drawn.seeds, drawn.candidates, strict=True), start=1)
        ]
        _count_deleted(folder, candidates, trials, progress)
        keep_begun(folder, _spendings(folder, trials).values())
        enrol_missing([(trial.config, folder / trial.name) for trial in trials], progress)
        for trial in trials:
            if not is_finished(folder / trial.name):
                spent = _spent(folder, candidates, trials)
                _write_ledger(folder, candidates, spent, status="running")
                progress.say(f"{trial.name}:")
                complete(trial.config, folder / trial.name, progress, prepare=partial(_as_trial, candidates, spent))
        spent = _spent(folder, candidates, trials)
        summary = _choose(trials, folder, candidates, spent)
        write_json(folder / SELECTION_FILE, {**read_json(folder / SELECTION_FILE), **summary.to_json()})
        write_trials(folder, summary.settings, summary.scores, summary.metric)
        for trial in trials:
            chosen = folder / trial.name == summary.best
            _bind(folder / trial.name, spent.selected(candidates.mean, chosen=chosen))
            if chosen:
                _write_ledger(folder, candidates, spent, status="finished", best=trial)
    return summary


def _candidates(config: Config, progress: Progress, *, mean: int, settings: Sequence[Setting]) -> _Candidates:
    gathered = gather(config, progress)
    configs = tuple(setting.applied(config) for setting in settings) or (config,)
    plans = tuple(plan_of(replace(gathered, config=one)) for one in configs)
    budgets = [plan.budget for plan in plans if plan.budget is not None]
    if len(budgets) < len(plans) or plans[0].facts.source == "seeded":
        problem = "choosing at a stated cost needs a private config whose noise comes from the operating system"
        raise InputError(problem, where="privacy")
    return _Candidates(
        base=config,
        configs=configs,
        plans=plans,
        planned=tuple(budget.mechanism for budget in budgets),
        settings=tuple(settings),
        mean=mean,
        delta=budgets[0].delta,
    )


def _settled(config: Config) -> Config:
    """The config with the same split in all trials: a sample that one trains on must never judge another."""
    if config.data.split_seed is None:
        data = config.data.model_copy(update={"split_seed": config.training.seed})
        config = config.model_copy(update={"data": data})
    return with_settled_precision(config)


def _drawn(candidates: _Candidates, folder: Path) -> DrawnTrials:
    cost = candidates.cost()
    text = "\n".join(map(config_to_toml, candidates.configs))
    identity = {
        "mean_trials": candidates.mean,
        "distribution": cost.distribution,
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "settings": [asdict(setting) for setting in candidates.settings],
    }
    return drawn_trials(folder, identity, mean=candidates.mean, count=len(candidates.configs), is_random=cost.is_random)


def _as_trial(candidates: _Candidates, spent: _Spent, plan: Plan) -> Plan:
    """The plan, whose ledger then states what releasing the best costs, and not its own training alone."""
    return replace(plan, facts=with_selection(plan.facts, spent.selected(candidates.mean)))


def _bind(path: Path, selected: Selected) -> None:
    """Write into a finished trial's ledger what the selection costs by now, and whether it chose this trial."""
    ledger = read_json(path / LEDGER_FILE)
    notes = with_selection_note(ledger["notes"], selected)
    told = {"epsilon": max(ledger["epsilon"], selected.epsilon), "notes": notes, "selection": asdict(selected)}
    write_json(path / LEDGER_FILE, {**ledger, **told})


def _spendings(folder: Path, trials: Sequence[_Trial]) -> dict[str, Spending]:
    """What each trial that is there spends."""
    paths = {trial.name: folder / trial.name / LEDGER_FILE for trial in trials}
    return {name: spending(name, read_json(path), where=str(path)) for name, path in paths.items() if path.is_file()}


def _count_deleted(folder: Path, candidates: _Candidates, trials: Sequence[_Trial], progress: Progress) -> None:
    """Count trials that have begun and are gone, before others take their places.

    Raises:
        InputError: their number is random.
    """
    spent = _spent(folder, candidates, trials)
    if not spent.deleted:
        return
    names = ", ".join(one.name for one in spent.deleted)
    if spent.cost.is_random:
        raise InputError(
            f"these trials have begun, and they or their ledgers are gone: {names}. ε of the best of a random number "
            "of trials holds only if none of them is made twice",
            where=str(folder),
            remedy="Put them back as they were. If they are lost, begin again in another folder; what was spent in "
            "this one counts in addition.",
        )
    progress.say(f"Deleted after they had begun, and still counted: {names}.")
    for trial in trials:
        if is_finished(folder / trial.name):
            _bind(folder / trial.name, spent.selected(candidates.mean))


def _spent(folder: Path, candidates: _Candidates, trials: Sequence[_Trial]) -> _Spent:
    """The cost, as if every trial had made as many extra draws as the worst of them: a crash can cause extra draws."""
    found = _spendings(folder, trials)
    extra = 0
    for trial in trials:
        if trial.name in found:
            planned = candidates.planned[trial.candidate].steps
            extra = max(extra, found[trial.name].steps - planned)
    # The number was drawn, or not, before anything was spent: what costs less by now no longer matters.
    cost = replace(candidates.cost(extra_steps=extra), drawn=candidates.cost().is_random)
    deleted = deleted_trials(folder, found)
    if deleted:
        made = [*candidates.mechanisms(extra_steps=extra), *(one.mechanism for one in deleted)]
        cost = replace(cost, by_composition=composed_epsilon(made, candidates.delta))
    return _Spent(cost=cost, deleted=deleted)


def _choose(trials: Sequence[_Trial], folder: Path, candidates: _Candidates, spent: _Spent) -> SelectionSummary:
    metric = candidates.plans[0].main_metric
    scores = {trial.name: validation_score(folder / trial.name, metric, trial.config) for trial in trials}
    best = best_of(scores, metric)
    made = [one.mechanism for one in (*_spendings(folder, trials).values(), *spent.deleted)]
    settings = {trial.name: candidates.settings[trial.candidate] for trial in trials} if candidates.settings else {}
    return SelectionSummary(
        folder=folder,
        best=folder / best,
        metric=metric,
        mean=candidates.mean,
        scores=scores,
        cost=spent.cost,
        deleted=len(spent.deleted),
        epsilon_all=composed_epsilon(made, candidates.delta),
        delta=candidates.delta,
        test=dict(read_json(folder / best / SUMMARY_FILE)["test"]),
        settings=settings,
        overrides=settings[best].overrides(candidates.base) if settings else (),
    )


def _write_ledger(
    folder: Path, candidates: _Candidates, spent: _Spent, *, status: str, best: _Trial | None = None
) -> None:
    """State what releasing the best costs; names the best alone, and does not tell how many trials were drawn."""
    number, cost = 0 if best is None else best.candidate, spent.cost
    facts, is_tuned = candidates.plans[number].facts, bool(candidates.settings)
    # Which setting was chosen may be told: it is part of what the selection releases.
    told = None if is_tuned and best is None else candidates.mechanisms()[number]
    chosen = None if best is None else number
    tuned = {"settings": [asdict(setting) for setting in candidates.settings], "chosen_setting": chosen}
    # At the end the time of the best trial's own ledger: another one would tell how long the trials after it took.
    created = utc_now()
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
            "mean_trials": spent.selected(candidates.mean).mean_trials,
            **(tuned if is_tuned else {}),
        },
        "noise_multiplier": told and told.noise_multiplier,
        "sampling_rate": told and told.sampling_rate,
        "steps_planned": told and told.steps,
        "adjacency": ADJACENCY,
        "unit_of_privacy": facts.unit,
        "noise_source": facts.source,
        "outside_accounting": [*OUTSIDE_EVERY_RUN, *facts.outside, CHOSEN_BY_VALIDATION],
        "notes": [*facts.notes, *_notes(spent)],
        "version": version("dpmed"),
        "created": created,
    }
    write_json(folder / LEDGER_FILE, content)


def _notes(spent: _Spent) -> list[str]:
    if spent.cost.is_random:
        return [BEST_ALONE]
    count = len(spent.deleted)
    return [f"Trials that were deleted count too, since somebody may have seen them: {count}."] if count else []
