"""One of several trainings in a folder: enrolled with the others, begun or resumed, and never made twice."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.files import make_folder
from dpmed.inference.run_folder import SUMMARY_FILE, is_run, read_config
from dpmed.planning.enrolment import enrol
from dpmed.planning.plan import Plan, make_plan
from dpmed.planning.run_ledger import with_run_id
from dpmed.progress import Progress
from dpmed.training.checkpoint import CHECKPOINTS
from dpmed.workflows.train import run as train


def with_training(config: Config, **changes: Any) -> Config:
    """The config with some keys of its `training` table replaced."""
    return config.model_copy(update={"training": config.training.model_copy(update=changes)})


def is_finished(path: Path) -> bool:
    """Whether a run's folder holds its last file."""
    return (path / SUMMARY_FILE).is_file()


def enrol_missing(runs: Sequence[tuple[Config, Path]], progress: Progress) -> None:
    """Enter unfinished runs into their cohort file: either all stay within its limit, or none is made.

    Args:
        runs: each with its folder.
        progress: reports to the user.

    Raises:
        InputError: a unit would exceed the limit, or the file has another unit of privacy.
    """
    entering = [
        (config, path)
        for config, path in runs
        if not is_finished(path) and config.privacy is not None and config.privacy.cohort
    ]
    enrol([(make_plan(config, progress), path / CHECKPOINTS) for config, path in entering], progress)


def complete(config: Config, path: Path, progress: Progress, *, prepare: Callable[[Plan], Plan]) -> None:
    """Make one training: begin it, resume it, or leave it as it is if finished.

    Args:
        config: the config of the run.
        path: its folder.
        progress: reports to the user.
        prepare: called with the plan before the run writes anything; returns the plan to carry out.

    Raises:
        InputError: the folder holds a run with another config.
        RunError: as for a single run.
    """
    begun = is_run(path)
    if begun and read_config(path) != config:
        raise InputError("holds a run with another config", where=str(path), remedy="Choose another folder.")
    if is_finished(path):
        return
    plan = make_plan(config, progress)
    # Here already, since the ledger of the folder that holds all runs names this one before it begins.
    plan = prepare(replace(plan, facts=with_run_id(plan.facts)))
    if begun:
        train.resume(path, progress, plan=plan)
    else:
        train.run(plan, make_folder(path), progress)
