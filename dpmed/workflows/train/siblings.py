"""Runs on the same patients in one folder: each ledger names the others, and none escapes the folder's ledger."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from dpmed.errors import InputError
from dpmed.files import read_json, write_json
from dpmed.inference.composed_ledger import Spending, listed
from dpmed.inference.ledger import LEDGER_FILE
from dpmed.planning.run_ledger import with_siblings_note


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


def require_outermost(folder: Path) -> None:
    """Refuse to add runs to a part of a sweep, since the sweep's ledger would not count them.

    Raises:
        InputError: the parent folder holds the ledger of a selection, or of several runs, some of them in this folder.
    """
    above = folder.parent / LEDGER_FILE
    content = read_json(above) if above.is_file() else {}
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
