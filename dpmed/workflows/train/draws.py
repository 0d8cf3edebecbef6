"""How many draws of noise a run has begun, determined when it resumes: never fewer than were made, nor other ones."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmed.errors import InputError
from dpmed.inference.composed_ledger import listed
from dpmed.inference.ledger import LEDGER_FILE, ledger_in
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.progress import Progress
from dpmed.training.checkpoint import CHECKPOINTS, DrawJournal

# Far more than machines round σ apart, and far less than any accountant's accuracy.
_SAME = 1 + 1e-6
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
    stated = ledger_in(folder)
    steps = _steps_in(stated) if was_begun else 0
    if damage is not None:
        if steps is None:
            raise InputError(
                f"{damage}, and {ledger.name} does not say how many steps were made: what was spent is unknown",
                where=str(path),
                remedy="Restore one of the two files, or start a new run.",
            )
        progress.say(f"{path}: {damage}. Steps are counted from {ledger.name}: more than were made.")
    # The ledger of an interrupted run covers all draws up to its next checkpoint.
    journal.draws = min(max(journal.draws, saved or 0, steps or 0), planned)
    journal.begin(journal.draws)
    is_estimate = damage is not None or COUNTED_FROM_LEDGER in listed(stated, "notes")
    return CountedDraws(journal=journal, notes=(COUNTED_FROM_LEDGER,) if is_estimate else ())


def check_draws(folder: Path, mechanism: SampledGaussian) -> None:
    """Refuse to count the draws that a run has made as others that cost less.

    A resumed run is planned anew. If that gives more noise or a lower sampling rate, the ledger would state them for
    all draws, those of before included.

    Args:
        folder: the run folder; nothing is compared if its ledger cannot be read.
        mechanism: what the run plans now.

    Raises:
        InputError: the draws of before had less noise, or a higher sampling rate.
    """
    content = ledger_in(folder)
    noise, rate = (_number(content.get(name)) for name in ("noise_multiplier", "sampling_rate"))
    told = None
    if mechanism.noise_multiplier > noise * _SAME:
        told = f"noise multiplier of {noise:.6g}", mechanism.noise_multiplier
    elif mechanism.sampling_rate * _SAME < rate:
        told = f"sampling rate of {rate:.6g}", mechanism.sampling_rate
    if told is not None:
        raise InputError(
            f"states a {told[0]} for the steps made so far, but a resume would plan {told[1]:.6g} and state it for all",
            where=str(folder / LEDGER_FILE),
            remedy="Restore the data set as it was, resume with the version of dpmed that began the run, or start a "
            "new run.",
        )


def _number(value: object) -> float:
    """A positive number, or NaN, which no comparison finds to differ."""
    return value if isinstance(value, float) and value > 0 else math.nan


def _steps_in(ledger: Mapping[str, Any]) -> int | None:
    steps = ledger.get("steps")
    is_count = isinstance(steps, int) and not isinstance(steps, bool) and steps >= 0
    return steps if is_count else None
