"""Runs on the same patients in one folder: each ledger names the others, and none escapes the folder's ledger."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dpmed.errors import InputError
from dpmed.files import write_json
from dpmed.inference.composed_ledger import PLANNED, Spending, folders_above, listed, spending
from dpmed.inference.ledger import LEDGER_FILE, ledger_in, read_any_ledger
from dpmed.planning.run_ledger import with_siblings_note
from dpmed.workflows.train.trials import selection_folder

# Of a folder that holds several runs. Whoever makes or resumes any of them holds it.
LOCK_FILE = "lock"
# What an entry states that may change between the plan of a run and its end.
_LEARNED = ("status", "epsilon", "run_id", "model_sha256")


def name_siblings(folder: Path, found: Mapping[str, Spending], names: Iterable[str]) -> None:
    """Name, in the ledger of each run in a folder, all other runs.

    Runs that a ledger names already stay named: deleting a run does not take back what it has spent.

    Args:
        folder: the folder that holds them.
        found: those that are there, as `read_spendings` finds them.
        names: the names of runs still to be made.
    """
    known = {other for run in found.values() for other in listed(run.ledger, "siblings")}
    every = sorted({*found, *names, *known})
    for name, run in found.items():
        siblings = [other for other in every if other != name]
        if run.ledger.get("siblings") != siblings:
            notes = list(with_siblings_note(run.ledger["notes"], siblings))
            write_json(folder / name / LEDGER_FILE, {**run.ledger, "notes": notes, "siblings": siblings})


def folders_counting(run: Path) -> list[Path]:
    """The folders above a run that count it together with others: a sweep's, or a selection's.

    Args:
        run: the folder of a run; it need not exist yet, since a ledger also lists runs that are only planned.
    """
    place, selection = run.resolve(), selection_folder(run)
    counting = [
        folder for folder in folders_above(place) if place.relative_to(folder).as_posix() in _counted_in(folder)
    ]
    return list(dict.fromkeys([*counting, *([] if selection is None else [selection.resolve()])]))


def keep_begun_run(run: Path, ledger: Mapping[str, Any]) -> None:
    """Keep, in the ledger of the folder that holds several runs, that one of them has begun and may have been seen.

    To be called once the run's own ledger is on the disk, and before its first draw. From then on the run counts as
    deleted if its folder is emptied, even if it was killed and nobody could note afterwards how far it had come. The
    caller holds the locks of `folders_counting`: between reading and writing nobody else adds a run.

    Args:
        run: the folder of a run; nothing happens unless a folder above lists it as planned.
        ledger: the content of its ledger.

    Raises:
        RunError: the folder's ledger cannot be written.
    """
    for folder in folders_above(run):
        # Of a damaged one, whoever adds runs to the folder is told.
        content = ledger_in(folder)
        entries = content.get("runs")
        if isinstance(entries, list):
            name = run.resolve().relative_to(folder).as_posix()
            begun = spending(name, ledger, where=name).to_json()
            told = {"status": begun["status"], "run_id": begun["run_id"]}
            kept = [{**entry, **told} if _is_plan_of(entry, begun) else entry for entry in entries]
            if kept != entries:
                write_json(folder / LEDGER_FILE, {**content, "runs": kept})


def require_outermost(folder: Path) -> None:
    """Refuse to add runs to a part of a sweep, since the sweep's ledger would not count them.

    Raises:
        InputError: the parent folder holds the ledger of a selection, or of several runs, some of them in this folder.
    """
    above = folder.parent / LEDGER_FILE
    content = read_any_ledger(above) if above.is_file() else {}
    runs = content.get("runs", []) if isinstance(content, dict) else []
    if isinstance(content, dict) and "selection" in content:
        raise InputError(
            "is one of the trials of a selection, whose cost would not count further runs", where=str(folder)
        )
    if any(str(run.get("folder", "")).startswith(f"{folder.name}/") for run in runs if isinstance(run, dict)):
        raise InputError(
            "is part of a sweep, whose ledger would not count further runs in this folder",
            where=str(folder),
            remedy=f"Add runs to {folder.parent}, or use another folder.",
        )


def _counted_in(folder: Path) -> set[str]:
    """The names of the runs that the ledger of a folder counts."""
    entries = ledger_in(folder).get("runs")
    listing = entries if isinstance(entries, list) else []
    return {str(entry.get("folder")) for entry in listing if isinstance(entry, dict)}


def _is_plan_of(entry: Any, begun: Mapping[str, Any]) -> bool:
    """Whether an entry is the plan of a run that begins, and so counts all that this run spends."""
    # By what it spends: a run that was killed before it had a ledger has another random name when it is resumed.
    is_planned = isinstance(entry, dict) and entry.get("status") == PLANNED
    return is_planned and all(entry.get(key) == begun[key] for key in begun if key not in _LEARNED)
