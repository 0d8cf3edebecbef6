"""Trials, of which a selection or a tuning keeps the best: their scores, their table, and which of them have begun.

A trial that has begun may have been seen. `selection.json` therefore keeps it from before its first draw, and a trial
that was deleted since then is told from the one that took its place.
"""

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.files import read_json, write_csv, write_json
from dpmed.inference.composed_ledger import SEED_FOLDER, Spending, gone_from, is_entry_of, spending
from dpmed.planning.advice.suggestion import Setting
from dpmed.training.stopping import is_lower_better

SELECTION_FILE, TRIALS_FILE, TRIAL_FOLDER = "selection.json", "trials.csv", "trial="
# Of every run; its last validation scores decide among trials.
METRICS_TABLE = "metrics.csv"
_BEGUN = "begun"


def validation_score(path: Path, metric: str, config: Config) -> float | None:
    """The validation score of the weights that a trial kept: its last, or its best if early stopping keeps those.

    Args:
        path: the folder of a finished trial.
        metric: the metric by which trials are chosen.
        config: the config of the trial.

    Returns:
        The score; None where the metric is undefined.

    Raises:
        InputError: the trial has no metrics, such as one that was deleted meanwhile.
    """
    table = path / METRICS_TABLE
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "validation"]
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(table)) from error
    scores = [float(row[metric]) for row in rows if row.get(metric)]
    scores = [score for score in scores if math.isfinite(score)]
    if not scores or (config.training.early_stopping is None and not rows[-1].get(metric)):
        return None
    if config.training.early_stopping is None:
        return scores[-1]
    return min(scores) if is_lower_better(metric) else max(scores)


def best_of(scores: Mapping[str, float | None], metric: str) -> str:
    """The name of the best score, or the first of equals: trials are equal in distribution, so order says nothing."""
    sign = -1.0 if is_lower_better(metric) else 1.0
    return max(scores, key=lambda name: _rank(scores[name], sign))


def trials_table(
    settings: Mapping[str, Setting], scores: Mapping[str, float | None], metric: str, best: str
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for the terminal.

    Args:
        settings: of all trials, by their names; empty where only the seed varies.
        scores: of all trials; None where the metric is undefined.
        metric: the metric by which trials are chosen.
        best: the name of the best.
    """
    rows = [
        [
            name,
            *(f"{value:g}" for value in _values(settings, name).values()),
            "–" if score is None else f"{score:.4f}",
            "best" if name == best else "",
        ]
        for name, score in scores.items()
    ]
    tuned = [column.replace("_", " ") for column in _values(settings, best)]
    return ["trial", *tuned, f"validation {metric}", ""], rows


def write_trials(
    folder: Path, settings: Mapping[str, Setting], scores: Mapping[str, float | None], metric: str
) -> None:
    """Write a row per setting that was tried; the file must stay inside, as it tells how many trials there were."""
    if settings:
        rows = [
            {"trial": name, **_values(settings, name), f"validation_{metric}": score} for name, score in scores.items()
        ]
        write_csv(folder / TRIALS_FILE, rows)


def holds_selection(folder: Path) -> bool:
    """Whether a selection was begun in a folder, even if its file is gone."""
    return (folder / SELECTION_FILE).is_file() or any(folder.glob(f"{TRIAL_FOLDER}*/{SEED_FOLDER}*"))


def chosen_trial(folder: Path) -> Path | None:
    """The trial that a selection chose; None as long as it has not, or if that trial is not there."""
    path = folder / SELECTION_FILE
    content = read_json(path) if path.is_file() else {}
    best = content.get("best") if isinstance(content, dict) else None
    # The folder may have been moved since: only the last two parts are those of the trial.
    trial = folder.joinpath(*Path(best).parts[-2:]) if isinstance(best, str) else folder
    return trial if trial != folder and trial.is_dir() else None


def selection_folder(run: Path) -> Path | None:
    """The folder of the selection that a run is a trial of, by where the run is; None for all other runs."""
    place = run.absolute().parent
    is_trial = place.name.startswith(TRIAL_FOLDER) and (place.parent / SELECTION_FILE).is_file()
    return place.parent if is_trial else None


def note_begun(run: Path, ledger: Mapping[str, Any]) -> None:
    """Keep that a trial has begun; to be called once its ledger is on the disk, and before its first draw.

    Args:
        run: the folder of a run; nothing happens if it is no trial of a selection.
        ledger: the content of its ledger.

    Raises:
        InputError: the selection's file is damaged.
        RunError: it cannot be written.
    """
    folder = selection_folder(run)
    if folder is not None:
        name = run.absolute().relative_to(folder).as_posix()
        keep_begun(folder, [spending(name, ledger, where=name)])


def keep_begun(folder: Path, found: Iterable[Spending]) -> None:
    """Keep trials that have begun, each once; one in the place of another is kept beside it.

    Args:
        folder: the folder of the selection.
        found: the trials, by their own ledgers.

    Raises:
        InputError: the selection's file is damaged.
        RunError: it cannot be written.
    """
    path, found = folder / SELECTION_FILE, tuple(found)
    content = read_json(path)
    try:
        others = [entry for entry in content.get(_BEGUN, []) if not any(is_entry_of(entry, one) for one in found)]
    except (AttributeError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    begun = [*others, *(one.to_json() for one in found)]
    if begun != content.get(_BEGUN, []):
        write_json(path, {**content, _BEGUN: begun})


def deleted_trials(folder: Path, present: Mapping[str, Spending]) -> tuple[Spending, ...]:
    """Trials that have begun and are no longer there, or were replaced by others of their names.

    Args:
        folder: the folder of the selection.
        present: all trials that are there, by name.

    Raises:
        InputError: the selection's file is damaged.
    """
    path = folder / SELECTION_FILE
    try:
        gone = gone_from(folder, read_json(path).get(_BEGUN, []), present, where=str(path))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    if not all(one.is_private for one in gone):
        raise _damaged(path, "a trial that is not private")
    return gone


def _damaged(path: Path, problem: object) -> InputError:
    remedy = "Restore it, or use another folder: what trials that were deleted have spent is unknown."
    return InputError(f"does not say which trials have begun ({problem})", where=str(path), remedy=remedy)


def _rank(score: float | None, sign: float) -> float:
    return -math.inf if score is None else sign * score


def _values(settings: Mapping[str, Setting], name: str) -> Mapping[str, int | float]:
    return settings[name].values() if settings else {}
