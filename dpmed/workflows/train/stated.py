"""What the ledger in a run's folder states, read before the run writes another."""

from pathlib import Path

from pydantic import ValidationError

from dpmed.errors import InputError
from dpmed.inference.composed_ledger import listed
from dpmed.inference.ledger import LEDGER_FILE, ReadSelection, ledger_in
from dpmed.privacy.ledger import Selected
from dpmed.workflows.train.trials import selection_folder


def siblings_of(path: Path) -> tuple[str, ...]:
    """The siblings that the ledger of a run names; none if the ledger cannot be read."""
    return listed(ledger_in(path), "siblings")


def run_id_of(path: Path) -> str | None:
    """The random name of a run, by its ledger; None if that cannot be read, or is of an earlier version."""
    found = ledger_in(path).get("run_id")
    return found if isinstance(found, str) else None


def notes_of(path: Path) -> tuple[str, ...]:
    """The notes of a run's ledger; none if it cannot be read."""
    return listed(ledger_in(path), "notes")


def uses_of(path: Path) -> tuple[str, ...]:
    """What the ledger of a run says that ε does not cover; nothing if it cannot be read."""
    return listed(ledger_in(path), "outside_accounting")


def selection_of(path: Path) -> Selected | None:
    """The selection of which a run is a trial, by its own ledger or by that of the folder that holds all trials.

    Raises:
        InputError: a ledger names a selection but not what it costs, or there is a selection but neither ledger.
    """
    folder = selection_folder(path)
    for place in (path,) if folder is None else (path, folder):
        ledger = ledger_in(place)
        found = ledger.get("selection")
        if isinstance(found, dict):
            try:
                # That of the folder has its ε beside it, and has not chosen this trial.
                read = ReadSelection.model_validate({"epsilon": ledger.get("epsilon"), "chosen": False, **found})
            except ValidationError as error:
                raise InputError("does not say what the selection costs", where=str(place / LEDGER_FILE)) from error
            return Selected(**read.model_dump())
    if folder is not None:
        raise InputError(
            "does not say what the selection costs, of which this run is a trial",
            where=str(folder / LEDGER_FILE),
            remedy="Continue the selection with the command that began it, which writes this file again.",
        )
    return None
