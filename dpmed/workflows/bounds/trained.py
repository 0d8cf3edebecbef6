"""The steps that `dpmed bounds RUN` is about: those of a finished run, or of several runs on the same patients."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpmed.errors import InputError
from dpmed.inference.composed_ledger import ComposedLedger, compose, folders_above, read_deleted, read_spendings
from dpmed.inference.ledger import LEDGER_FILE, ReadLedger, read_any_ledger, read_ledger
from dpmed.privacy.mechanism import counted
from dpmed.progress import Progress

SEEDED = "The noise comes from a seed: for anyone who knows the seed, none of these bounds holds."


def from_ledger(folder: Path, progress: Progress) -> tuple[dict[str, Any], str]:
    """Settings for `BoundsSettings` from the ledger of a run, or of a folder of several runs, and what they are.

    Raises:
        InputError: no noise bounds what they reveal, or the bounds of single trainings do not hold for them.
    """
    content = read_any_ledger(folder / LEDGER_FILE)
    if isinstance(content, dict) and content.get("selection") is not None:
        what = "is a trial of" if "model_sha256" in content else "holds the trials of"
        raise InputError(
            f"{what} a selection: the bounds of one training are not those of the best of several",
            where=str(folder),
            remedy="The model card of `dpmed export` states those that hold; or name the config.",
        )
    if isinstance(content, dict) and "runs" in content:
        return _several(folder, progress), f"the runs in {folder} together"
    ledger = read_ledger(folder / LEDGER_FILE)
    if not ledger.promises or ledger.steps < 1:
        why = "no step has been made yet" if ledger.private else "it was trained without differential privacy"
        raise InputError(f"{why}, so there is no noise that bounds anything", where=str(folder))
    # When a run stops may depend on its data, so the steps that it made are no smaller risk.
    steps = max(ledger.steps, ledger.steps_planned or 0)
    planned = "" if steps == ledger.steps else f" planned, {ledger.steps} of which its ledger counts"
    progress.say(f"From the run's ledger: σ = {ledger.noise_multiplier:.4g}, {steps} steps{planned}.")
    found = {
        "train_size": ledger.train_size,
        "batch_size": max(1, round(ledger.sampling_rate * ledger.train_size)),
        "steps": steps,
        "delta": ledger.delta,
        "accountant": ledger.accountant,
        "noise_multipliers": (ledger.noise_multiplier,),
        "notes": (*_note_on_siblings(folder, ledger), *_note_on_source([ledger.noise_source])),
    }
    return found, f"the run in {folder}"


def _several(folder: Path, progress: Progress) -> dict[str, Any]:
    """The composition of all private runs in a folder, and of those deleted there."""
    composed = _composed(folder)
    private = [run for run in composed.runs if run.is_private]
    mechanisms = counted(run.mechanism for run in private)
    if not mechanisms:
        problem = (
            "none of these runs has made a step with differential privacy, so there is no noise that bounds anything"
        )
        raise InputError(problem, where=str(folder))
    steps = sum(one.steps for one in mechanisms)
    number = f"{len(private)} private run" + "s" * (len(private) > 1)
    progress.say(f"From the ledgers of {number}: {steps} steps.")
    notes = [
        f"These are bounds of the steps of {number} together: they hold for whoever sees all of them, or the best one "
        "chosen among them."
        if len(private) > 1
        else f"These are bounds of the steps of {number}."
    ]
    exposed = [run.label for run in composed.runs if not run.is_private]
    if exposed:
        notes.append(f"Nothing bounds what runs without an ε reveal: {', '.join(exposed)}.")
    notes += _note_on_source([run.ledger.get("noise_source") for run in private])
    # The smallest training set is the easiest to guess from.
    sizes = [run.ledger["train_size"] for run in private if type(run.ledger.get("train_size")) is int]
    train_size = min((size for size in sizes if size > 0), default=None)
    first = mechanisms[0]
    batch_size = train_size and min(train_size, max(1, round(first.sampling_rate * train_size)))
    found = {
        "train_size": train_size,
        "batch_size": batch_size,
        "steps": steps,
        "delta": composed.delta,
        "accountant": composed.accountant,
        "notes": tuple(notes),
    }
    if len(mechanisms) == 1 and train_size and batch_size / train_size == first.sampling_rate:
        # Runs of equal noise and rate are one run of all their steps.
        return {**found, "noise_multipliers": (first.noise_multiplier,)}
    return {**found, "mechanisms": mechanisms}


def _composed(folder: Path) -> ComposedLedger:
    """Runs whose noise comes from a seed count as not private beside one whose noise does not."""
    present = read_spendings(folder)
    runs = [*present.values(), *read_deleted(folder, present)]
    sources = {run.ledger.get("noise_source") for run in runs if run.is_private}
    source = "os-entropy" if "os-entropy" in sources else "seeded"
    return compose(run.known_as_private(source) for run in runs)


def _note_on_source(sources: Sequence[Any]) -> tuple[str, ...]:
    return (SEEDED,) if "seeded" in sources else ()


def _note_on_siblings(folder: Path, ledger: ReadLedger) -> tuple[str, ...]:
    if not ledger.siblings:
        return ()
    place = next((one for one in folders_above(folder) if (one / LEDGER_FILE).is_file()), None)
    how = "how much is unknown, since their ledgers are not beside it"
    if place is not None:
        how = f"`dpmed bounds {os.path.relpath(place)}`"
    return (
        f"It is one of {len(ledger.siblings) + 1} runs of one command on the same data; these are its bounds alone. "
        f"If it was chosen by its scores among them, or if several are published, the risk is higher: {how}.",
    )
