"""The ledger of a run of a plan: with privacy or without."""

from collections.abc import Sequence
from dataclasses import replace

from dpmed.planning.plan import Plan
from dpmed.privacy.ledger import Digests, Ledger, LedgerFacts, plain_ledger, private_ledger

SIBLINGS_NOTE = (
    "This run is one of several of the same kind on the same patients, which `siblings` names. Who chooses the best of "
    "them, or releases several, spends their composed ε: it stands in privacy.json of the folder that holds them all."
)


def run_ledger(
    plan: Plan, *, draws: int, status: str, notes: Sequence[str] = (), digests: Digests | None = None
) -> Ledger:
    """The ledger of a run of `plan` after some draws.

    Args:
        plan: of the run.
        draws: that are counted.
        status: `planned`, `running`, `stopped` or `finished`.
        notes: beyond the plan's own.
        digests: what the ledger is bound to.
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


def with_siblings(facts: LedgerFacts, siblings: Sequence[str]) -> LedgerFacts:
    """The facts of a run that has siblings, which its ledger then names, and says what choosing among them costs."""
    return replace(facts, siblings=tuple(siblings), notes=with_siblings_note(facts.notes, siblings))


def with_siblings_note(notes: Sequence[str], siblings: Sequence[str]) -> tuple[str, ...]:
    """The notes of a ledger with the note on siblings if there are any, and without it if there are none."""
    others = tuple(note for note in notes if note != SIBLINGS_NOTE)
    return (*others, SIBLINGS_NOTE) if siblings else others
