"""How many draws of noise a run has begun, determined when it resumes: never fewer than were made."""

from dataclasses import dataclass
from pathlib import Path

from dpmed.errors import InputError
from dpmed.files import read_json
from dpmed.inference.ledger import LEDGER_FILE
from dpmed.progress import Progress
from dpmed.training.checkpoint import CHECKPOINTS, DrawJournal

COUNTED_FROM_LEDGER = (
    "The journal of draws was missing or damaged when the run was resumed: steps were counted from the ledger, which "
    "covers all steps up to the next checkpoint, so more than were made, never fewer."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class CountedDraws:
    """The draws of a run that starts or resumes.

    Attributes:
        journal: the journal, whose count covers every draw that was made.
        notes: for the ledger, if the count is not the journal's own.
    """

    journal: DrawJournal
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _OldLedger:
    steps: int | None
    notes: tuple[str, ...] = ()


def count_draws(folder: Path, *, saved: int | None, planned: int, progress: Progress) -> CountedDraws:
    """Open the journal at the largest count that journal, checkpoint or ledger has on record.

    Args:
        folder: the run folder.
        saved: draws of the newest checkpoint; None without one.
        planned: draws that the budget was computed for; no run makes more.
        progress: reports a journal that cannot be trusted.

    Raises:
        InputError: the journal is missing or damaged, and the ledger does not say how many draws were made.
    """
    path, ledger = folder / CHECKPOINTS / "draws", folder / LEDGER_FILE
    was_begun = saved is not None or ledger.exists()
    is_missing = was_begun and not path.exists()
    journal = DrawJournal(path)
    damage = "is missing" if is_missing else journal.damage
    if damage is None and journal.draws < (saved or 0):
        damage = f"counts {journal.draws} draws, fewer than the {saved} of the checkpoint"
    old = _read(ledger) if was_begun else _OldLedger(0)
    if damage is not None:
        if old.steps is None:
            raise InputError(
                f"{damage}, and {ledger.name} does not say how many steps were made: what was spent is unknown",
                where=str(path),
                remedy="Restore one of the two files, or start a new run.",
            )
        progress.say(f"{path}: {damage}. Steps are counted from {ledger.name}: more than were made.")
    # The ledger of an interrupted run covers all draws up to its next checkpoint.
    journal.draws = min(max(journal.draws, saved or 0, old.steps or 0), planned)
    journal.begin(journal.draws)
    is_estimate = damage is not None or COUNTED_FROM_LEDGER in old.notes
    return CountedDraws(journal=journal, notes=(COUNTED_FROM_LEDGER,) if is_estimate else ())


def _read(path: Path) -> _OldLedger:
    try:
        content = read_json(path)
    except InputError:
        return _OldLedger(None)
    if not isinstance(content, dict):
        return _OldLedger(None)
    steps, notes = content.get("steps"), content.get("notes")
    known = isinstance(steps, int) and not isinstance(steps, bool) and steps >= 0
    return _OldLedger(steps if known else None, tuple(notes) if isinstance(notes, list) else ())
