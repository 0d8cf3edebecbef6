"""The ledger of a plan's run, with or without privacy."""

import os
from collections.abc import Sequence
from dataclasses import replace

from dpmed.planning.plan import Plan
from dpmed.privacy.ledger import (
    OUTSIDE_EVERY_RUN,
    Digests,
    Ledger,
    LedgerFacts,
    Selected,
    plain_ledger,
    private_ledger,
)

SIBLINGS_NOTE = (
    "This run is one of several of the same kind on the same patients, which `siblings` names. Choosing the best of "
    "them, or releasing several, spends their composed ε, stated in privacy.json of the folder that holds them all."
)
CHOSEN_BY_VALIDATION = (
    "Validation scores, computed exactly, chose the best of several trials; ε says nothing about validation samples."
)
BEST_ALONE = "The number of trials, and all trials but the best, must stay secret: ε holds for the best one alone."
_NOT_ALONE = "not that of this training alone."
_PLACES = "A record's gradient was found to depend on its place in a microbatch"


def run_ledger(
    plan: Plan, *, draws: int, status: str, notes: Sequence[str] = (), digests: Digests | None = None
) -> Ledger:
    """The ledger of a run of `plan` after some draws.

    Args:
        plan: the run's plan.
        draws: draws to be counted.
        status: `planned`, `running`, `stopped` or `finished`.
        notes: notes in addition to the plan's own.
        digests: digests of what the ledger belongs to.
    """
    facts = replace(plan.facts, notes=(*plan.facts.notes, *notes))
    if plan.budget is not None:
        return private_ledger(plan.budget, facts, steps=draws, status=status, digests=digests)
    return plain_ledger(
        facts,
        train_size=plan.train_size,
        batch_size=plan.config.training.batch_size,
        steps=draws,
        steps_planned=plan.steps,
        status=status,
        digests=digests,
    )


def place_notes(effect: float, known: Sequence[str] = ()) -> tuple[str, ...]:
    """Notes on a measured `dpmed.dpsgd.places.place_effect`.

    Args:
        effect: what was measured on this machine.
        known: notes of a ledger from the same run's earlier parts, which may have run on another machine.
    """
    earlier = tuple(note for note in known if note.startswith(_PLACES))
    if not effect:
        return earlier
    found = (
        f"{_PLACES}, through rounding in float32 on the machine that trained. Over one microbatch this adds up to "
        f"{effect:.1g} of a clipped gradient; adding or removing one record may move the sum by as much for each "
        "microbatch of a step. ε does not count this; training.microbatch = 1 avoids it."
    )
    return (*(note for note in earlier if note != found), found)


def with_run_id(facts: LedgerFacts, known: str | None = None) -> LedgerFacts:
    """The facts of a run with its random name: the one that its ledger states, its own, or a new one."""
    return replace(facts, run_id=known or facts.run_id or os.urandom(16).hex())


def with_earlier_uses(facts: LedgerFacts, known: Sequence[str]) -> LedgerFacts:
    """The facts of a resumed private run, which leave out nothing that its ledger said before.

    Some sentences are about files that may have been replaced since, such as the initial weights; those in the run's
    checkpoints have not.

    Args:
        facts: of the plan as it is now.
        known: `outside_accounting` of the run's ledger.
    """
    others = (one for one in known if one not in OUTSIDE_EVERY_RUN and one not in facts.outside)
    return replace(facts, outside=(*facts.outside, *others))


def with_siblings(facts: LedgerFacts, siblings: Sequence[str]) -> LedgerFacts:
    """The facts of a run with siblings: its ledger names them and states what choosing among them costs."""
    return replace(facts, siblings=tuple(siblings), notes=with_siblings_note(facts.notes, siblings))


def with_siblings_note(notes: Sequence[str], siblings: Sequence[str]) -> tuple[str, ...]:
    """A ledger's notes, with the note on siblings if there are any, otherwise without it."""
    others = tuple(note for note in notes if note != SIBLINGS_NOTE)
    return (*others, SIBLINGS_NOTE) if siblings else others


def with_selection(facts: LedgerFacts, selection: Selected) -> LedgerFacts:
    """The facts of a trial of a selection: its ledger states what releasing the best costs, and how it is chosen."""
    outside = facts.outside if CHOSEN_BY_VALIDATION in facts.outside else (*facts.outside, CHOSEN_BY_VALIDATION)
    return replace(facts, selection=selection, notes=with_selection_note(facts.notes, selection), outside=outside)


def with_selection_note(notes: Sequence[str], selection: Selected) -> tuple[str, ...]:
    """A trial's notes, with one on what its ε is; that takes the place of an earlier one."""
    note = (
        f"ε is that of releasing the best of a random number of trials, {selection.mean_trials} on average, "
        f"{_NOT_ALONE} {BEST_ALONE}"
        if selection.distribution == "geometric"
        else f"ε is that of the {selection.mean_trials} trials together, from which the best is chosen, {_NOT_ALONE}"
    )
    others = tuple(one for one in notes if _NOT_ALONE not in one)
    return (*others, note)
