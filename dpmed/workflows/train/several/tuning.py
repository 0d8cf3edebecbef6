"""`dpmed train CONFIG --tune N`: the best of N settings, on public data at no cost in ε, or on the training data.

On public data a trial imitates the real training: it makes as many steps with the same noise on the mean gradient, σ/B,
as the setting has at the real number of records. A stand-in that is too small for the batch takes a smaller batch and
less noise in proportion, which keeps σ/B (Sander et al., 2023, "TAN without a burn"). The accuracy of the trials is
that of the stand-in; what carries over is which setting is better. Of the training data only N and shapes are used.

On the training data, `selection` makes the trials and accounts for them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dpmed.config.data import DataTable
from dpmed.config.load import LoadedConfig, config_to_toml
from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.files import exclusive_lock, read_json, write_json
from dpmed.metrics.evaluate import main_metric
from dpmed.planning.advice.candidates import settings_around
from dpmed.planning.advice.sizes import with_sizes
from dpmed.planning.advice.suggestion import Setting, suggest
from dpmed.planning.plan import Gathered, Plan, gather
from dpmed.privacy.budget import Budget, steps_per_epoch
from dpmed.progress import Progress
from dpmed.workflows.train.several import selection
from dpmed.workflows.train.several.member import complete
from dpmed.workflows.train.siblings import LOCK_FILE
from dpmed.workflows.train.trials import (
    TRIAL_FOLDER,
    best_of,
    holds_selection,
    trials_table,
    validation_score,
    write_trials,
)

TUNING_FILE = "tuning.json"
# A batch of the stand-in holds at most half of it: with all of it in every batch there would be no sampling.
_LARGEST_RATE = 0.5
_FEWEST = 2


@dataclass(frozen=True, kw_only=True)
class TuningSummary:
    """What tuning on public data found.

    Attributes:
        folder: the folder that holds the trials, `trials.csv` and `tuning.json`.
        data: the name of the stand-in.
        metric: the metric that chose the best, on the stand-in's validation split.
        settings: of all trials, by the names of their folders.
        scores: of all trials; None where the metric is undefined.
        best: the name of the best.
        overrides: `KEY=VALUE` for the real config.
    """

    folder: Path
    data: str
    metric: str
    settings: Mapping[str, Setting]
    scores: Mapping[str, float | None]
    best: str
    overrides: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of `tuning.json`, except what tells tunings apart."""
        return {
            "folder": str(self.folder),
            "tuned_on": "public data",
            "data": self.data,
            "epsilon": 0.0,
            "main_metric": self.metric,
            "validation": dict(self.scores),
            "best": self.best,
            "setting": self.settings[self.best].values(),
            "set": list(self.overrides),
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for the terminal."""
        return trials_table(self.settings, self.scores, self.metric, self.best)

    def words(self) -> str:
        """What was done, and what it cost."""
        return (
            f"Settings were tried on {self.data}, which you say is public: that costs no ε, and of the training data "
            "only the number of records and the shapes were used. The scores are those of the stand-in and say nothing "
            "about the real accuracy."
        )


def on_training_data(config: Config, folder: Path, progress: Progress, *, count: int) -> selection.SelectionSummary:
    """Try settings on the training data, and account for choosing the best of them.

    Args:
        config: a private config with noise from the operating system.
        folder: an empty one, or that of the same tuning.
        progress: reports to the user.
        count: the number of settings, at least 2.

    Raises:
        InputError: as `selection.run`, or the folder holds a tuning on public data.
        RunError: as for a single run.
    """
    if (folder / TUNING_FILE).is_file():
        raise InputError(
            "holds a tuning on public data, which a tuning on the training data does not continue",
            where=str(folder),
            remedy="Choose another folder; or continue that tuning with the --on with which it was begun.",
        )
    size = len(gather(config, progress).members)
    settings = settings_around(suggest(config, size), config, count=count, seed=config.training.seed)
    if len(settings) < _FEWEST:
        problem = "only one setting leaves noise for gradients beside the counts of adaptive clipping"
        raise InputError(problem, where="privacy.clipping.count_noise", remedy="Choose a larger value.")
    if len(settings) < count:
        progress.say(f"There are only {len(settings)} different settings: as many are tried, and counted.")
    # As many trials as are accounted for, which may be fewer than were asked for.
    return selection.run(config, folder, progress, mean=len(settings), settings=settings)


def on_public_data(
    config: Config, public: LoadedConfig, folder: Path, progress: Progress, *, count: int
) -> TuningSummary:
    """Try settings on public data instead of the training data.

    Args:
        config: a private config.
        public: a config whose data, model, loss and augmentation stand in for those of `config`.
        folder: an empty one, or that of the same tuning.
        progress: reports to the user.
        count: the number of settings, at least 1.

    Raises:
        InputError: the config is not private, the stand-in reads the same data or has another task, or the folder holds
            another tuning or a selection.
        RunError: as for a single run.
    """
    if holds_selection(folder):
        raise InputError(
            "holds trials on the training data, which a tuning on public data does not continue",
            where=str(folder),
            remedy="Choose another folder; or continue those trials with the command that began them.",
        )
    _require_apart(config.data, public.config.data)
    real = gather(config, progress)
    suggestion = suggest(real.config, len(real.members))
    settings = settings_around(suggestion, real.config, count=count, seed=config.training.seed)
    with public.locating():
        standing = gather(_in_the_place_of(real.config, public.config), progress)
    _require_same_task(real, standing)
    identity = {
        "config_sha256": _digest(real.config),
        "public_sha256": _digest(public.config),
        "settings": [asdict(setting) for setting in settings],
    }
    trials = {}
    for number, setting in enumerate(settings, start=1):
        sizes = with_sizes(suggestion.request, batch_size=setting.batch_size, epochs=setting.epochs)
        trial = _imitating(standing.config, setting, sizes.budget, size=len(standing.members))
        trials[f"{TRIAL_FOLDER}{number}"] = trial
    with exclusive_lock(folder / LOCK_FILE):
        _require_same_tuning(folder, identity)
        for name, trial in trials.items():
            progress.say(f"{name}:")
            complete(trial, folder / name, progress, prepare=_as_trial)
        summary = _sum_up(real, standing, trials, folder, settings=dict(zip(trials, settings, strict=True)))
        write_json(folder / TUNING_FILE, {**identity, **summary.to_json()})
        write_trials(folder, summary.settings, summary.scores, summary.metric)
    return summary


def holds_tuning(folder: Path) -> bool:
    """Whether a tuning of either kind was begun in a folder."""
    return (folder / TUNING_FILE).is_file() or holds_selection(folder)


def _in_the_place_of(config: Config, public: Config) -> Config:
    """The real training with the stand-in's data, and with the tables that depend on the data."""
    if config.privacy is None:
        raise InputError("is missing; only private training is tuned", where="privacy")
    # Nobody is protected here: seeded, a tuning can be repeated, and no cohort is charged.
    privacy = {"unit": public.unit, "noise_source": "seeded", "cohort": None, "cohort_epsilon": None}
    return config.model_copy(
        update={
            "data": public.data,
            "model": public.model,
            "loss": public.loss,
            "augmentation": public.augmentation,
            "evaluation": config.evaluation.model_copy(update={"break_down_by": None, "bootstrap": 0}),
            "privacy": config.privacy.model_copy(update=privacy),
        }
    )


def _imitating(standing: Config, setting: Setting, budget: Budget, *, size: int) -> Config:
    """A training of `size` public records with a setting's steps and its σ/B.

    Args:
        standing: the stand-in's config.
        setting: the setting to try.
        budget: the budget of the setting at the real number of records.
        size: the number of training records of the stand-in.
    """
    batch_size = max(1, min(setting.batch_size, int(size * _LARGEST_RATE)))
    epochs = max(1, round(budget.steps / steps_per_epoch(size, batch_size)))
    noise = budget.noise_multiplier * batch_size / setting.batch_size
    trial = replace(setting, batch_size=batch_size, epochs=epochs, epsilon=None).applied(standing)
    targets = {"noise_multiplier": noise, "max_reconstruction_risk": None, "adversary": None, "prior": None}
    return trial.model_copy(update={"privacy": trial.privacy and trial.privacy.model_copy(update=targets)})


def _require_apart(private: DataTable, public: DataTable) -> None:
    """Refuse a stand-in that reads what the real training reads: its trials would not be accounted for."""
    roots = [getattr(table, "root", None) for table in (private, public)]
    places = [Path(root).expanduser().resolve() for root in roots if root is not None]
    if len(places) == len(roots):
        first, second = places
        is_same = first.is_relative_to(second) or second.is_relative_to(first)
    else:
        is_same = _without_places(private) == _without_places(public)
    if is_same:
        raise InputError(
            "reads the same data as the training itself: settings tried there cost ε",
            where="on",
            remedy="Name a config of public data kept elsewhere, such as phantoms; or leave it out, and the cost is "
            "counted.",
        )


def _without_places(table: DataTable) -> tuple[str, object]:
    """What tells data sets without a folder apart: the name, or the code of a custom one."""
    return str(getattr(table, "name", "")), getattr(table, "factory", None)


def _require_same_task(real: Gathered, standing: Gathered) -> None:
    asked, found = real.dataset.info.task, standing.dataset.info.task
    if asked != found:
        raise InputError(
            f"is for {found}, but the training is for {asked}: what suits one need not suit the other",
            where="on",
            remedy=f"Name a config of public data for {asked}.",
        )


def _require_same_tuning(folder: Path, identity: Mapping[str, Any]) -> None:
    path = folder / TUNING_FILE
    if path.is_file():
        content = read_json(path)
        if not isinstance(content, dict) or any(content.get(name) != value for name, value in identity.items()):
            problem = "holds a tuning of another config, on other data, or with another number of settings"
            raise InputError(problem, where=str(folder), remedy="Choose another folder.")
        return
    write_json(path, identity)


def _as_trial(plan: Plan) -> Plan:
    note = (
        "This run tried a setting on data that the user calls public, with noise from a seed; it protects nobody, and "
        "its results are about that data alone."
    )
    return replace(plan, facts=replace(plan.facts, notes=(*plan.facts.notes, note)))


def _sum_up(
    real: Gathered, standing: Gathered, trials: Mapping[str, Config], folder: Path, *, settings: Mapping[str, Setting]
) -> TuningSummary:
    metric = real.config.evaluation.main_metric or main_metric(standing.dataset.info.task)
    scores = {name: validation_score(folder / name, metric, trial) for name, trial in trials.items()}
    best = best_of(scores, metric)
    return TuningSummary(
        folder=folder,
        data=standing.dataset.info.name,
        metric=metric,
        settings=settings,
        scores=scores,
        best=best,
        overrides=settings[best].overrides(real.config),
    )


def _digest(config: Config) -> str:
    return hashlib.sha256(config_to_toml(config).encode()).hexdigest()
