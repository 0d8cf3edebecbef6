"""A run and its cohort: it is entered before its first step, and what it has spent when it ends."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from dpmed.config.load import config_to_toml
from dpmed.config.privacy import PrivacyConfig
from dpmed.data.identity import image_names
from dpmed.errors import DpmedError, InputError
from dpmed.files import make_folder, read_json, remove_if_possible, write_json
from dpmed.inference.ledger import ledger_in
from dpmed.planning.plan import Plan
from dpmed.privacy.cohort.file import Cohort
from dpmed.privacy.cohort.records import Entry, Names, Snapshot, Status
from dpmed.privacy.cohort.spending import require_within
from dpmed.progress import Progress

# Written before the entry: a run that was killed in between finds its token and uses it for its entry.
ENTRY_FILE = "cohort.json"


def enrol(plans: Sequence[tuple[Plan, Path]], progress: Progress) -> None:
    """Enter runs, all or none, in their cohort file; those that are already in it count as planned again.

    Each time a run gets a new token. Of several copies of its folder, the one that is resumed first therefore goes on
    with the run's entry; the others are entered anew, since each of them makes draws of its own. Once a run has
    finished, its entry stays its own.

    Args:
        plans: each run's plan and the folder in which it keeps what a resume needs. Runs whose config names no cohort
            are skipped.
        progress: shows the reading of images, whose content identifies them, and tells of a file that is made, since no
            earlier run counts in it: its path may be misspelt, or its disk not mounted.

    Raises:
        InputError: a unit would exceed the limit, the file has another unit of privacy, or it is gone: a new one would
            know nothing of what was spent before. Nothing is left behind.
        RunError: the file cannot be written.
    """
    entered = [(plan, folder, found) for plan, folder in plans if (found := _with_cohort(plan)) is not None]
    if not entered:
        return
    _, _, (path, first) = entered[0]
    if any(other != path for _, _, (other, _) in entered):
        raise InputError("all runs of one call must use the same cohort file", where="privacy.cohort")
    fresh = [folder for _, folder, _ in entered if not (folder / ENTRY_FILE).is_file()]
    is_new = not os.path.exists(path)  # without the errors of `Path`, which are told where the file is opened
    if is_new and len(fresh) < len(entered):
        raise InputError(
            f"{path.absolute()} is gone, the file that this run has been entered in: what was spent is on record there",
            where="privacy.cohort",
            remedy="Put it back, mount its disk, or start in the same folder as before if its path is a relative one.",
        )
    try:
        with Cohort(path, create=(first.unit, first.delta)) as cohort:
            for plan, _, (_, privacy) in entered:
                _require_same_cohort(cohort, plan, privacy)
            # Before anything is written: reading the images takes minutes, and may be interrupted.
            units = [unit_names(plan, progress) for plan, _, _ in entered]
            entries = [_entry(plan, folder, names) for (plan, folder, _), names in zip(entered, units, strict=True)]
            cohort.enter(entries, partial(_within, first))
    except DpmedError:
        for folder in fresh:
            remove_if_possible(folder / ENTRY_FILE)
            with suppress(OSError):  # not empty, or never created
                folder.rmdir()
        raise
    for entry, (_, folder, _) in zip(entries, entered, strict=True):
        write_json(folder / ENTRY_FILE, {"token": entry.token, "is_over": entry.is_over})
    if is_new:
        progress.say(f"{path.absolute()} is a new cohort file: no run before this call counts in it.")


def mark_over(plan: Plan, folder: Path) -> None:
    """Note beside a run's token that it has made all its draws, which tells it from older copies of its folder.

    Args:
        plan: the run's plan.
        folder: as for `enrol`.
    """
    if _with_cohort(plan) is not None:
        token, *others = _tokens(folder / ENTRY_FILE)
        write_json(folder / ENTRY_FILE, {"token": token, "others": others, "is_over": True})


def enter_end(plan: Plan, folder: Path, *, steps: int, status: Status) -> None:
    """Enter how a run has ended, if its config names a cohort; all its planned steps stay counted.

    Args:
        plan: the run's plan.
        folder: as for `enrol`.
        steps: draws made.
        status: `stopped` or `finished`.
    """
    found = _with_cohort(plan)
    if found is not None:
        token, *_ = _tokens(folder / ENTRY_FILE)
        with Cohort(found[0]) as cohort:
            cohort.settle(token, steps=steps, status=status)


def _with_cohort(plan: Plan) -> tuple[Path, PrivacyConfig] | None:
    privacy = plan.config.privacy
    return None if privacy is None or privacy.cohort is None else (privacy.cohort, privacy)


def unit_names(plan: Plan, progress: Progress) -> list[Names]:
    """All names of the unit of each record, the same whatever the run learns from it.

    A patient, lesion or scan has one, as in the data set. An image is named by each of its files, and by its content.
    """
    dataset, numbers = plan.dataset, [int(samples[0]) for samples in plan.members]
    if plan.facts.unit != "image":
        return [(dataset.groups[number],) for number in numbers]
    return image_names(dataset, numbers, progress)


def _entry(plan: Plan, folder: Path, units: Sequence[Names]) -> Entry:
    assert plan.budget is not None  # noqa: S101 only a private config can name a cohort
    token, path = os.urandom(16).hex(), folder / ENTRY_FILE
    former, is_over = (_tokens(path), _is_over(folder)) if path.is_file() else ((), False)
    make_folder(folder)
    # All of them, until the new one is in the cohort file: a crash in between leaves one that is.
    first, *others = (*former, token)
    write_json(path, {"token": first, "others": others, "is_over": is_over})
    return Entry(
        token=token,
        is_over=is_over,
        former=former,
        folder=str(folder.parent),
        config_sha256=hashlib.sha256(config_to_toml(plan.config).encode()).hexdigest(),
        data=plan.facts.data,
        mechanism=plan.budget.mechanism,
        units=units,
    )


def _tokens(path: Path) -> tuple[str, ...]:
    """The tokens under which a run may be in its cohort file, usually one."""
    content = read_json(path)
    content = content if isinstance(content, dict) else {}
    found = [content.get("token"), *content.get("others", ())]
    if not all(isinstance(token, str) for token in found):
        raise InputError("does not name the run's entry in its cohort file", where=str(path))
    return tuple(found)


def _is_over(folder: Path) -> bool:
    """Whether a run has made all its draws; of a run of an earlier version, only its ledger says so."""
    content = read_json(folder / ENTRY_FILE)
    is_noted = isinstance(content, dict) and content.get("is_over") is True
    return is_noted or ledger_in(folder.parent).get("status") == "finished"


def _require_same_cohort(cohort: Cohort, plan: Plan, privacy: PrivacyConfig) -> None:
    if cohort.unit != plan.facts.unit:
        raise InputError(
            f"counts what each {cohort.unit} has spent, but this run protects each {plan.facts.unit}",
            where="privacy.cohort",
            remedy=f'Use privacy.unit = "{cohort.unit}", or another cohort file.',
        )
    if privacy.delta > cohort.delta:
        raise InputError(
            f"states ε at δ = {cohort.delta}, but this run's δ = {privacy.delta} is larger",
            where="privacy.cohort",
            remedy=f"Use privacy.delta = {cohort.delta} or less.",
        )


def _within(privacy: PrivacyConfig, snapshot: Snapshot, tokens: frozenset[str]) -> None:
    limits = [limit for limit in (snapshot.limit, privacy.cohort_epsilon) if limit is not None]
    if limits:
        require_within(min(limits), snapshot, tokens)
