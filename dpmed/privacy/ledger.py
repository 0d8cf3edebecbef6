"""The privacy ledger: what a run has spent, and what its ε does not cover.

It is the one place where a run says what it promises. ε is written as computed, never rounded down; every other use of
private data stands in `outside_accounting`, a sentence each.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dpmed.privacy.budget import Budget

OUTSIDE_EVERY_RUN = (
    "Validation and test metrics are computed exactly; ε says nothing of validation and test samples.",
    "The training loss in the progress display, metrics.csv and curves.png is computed from the training samples "
    "without noise.",
    "Counts of rejected (non-finite) and clipped gradients and the number of records of a step, where shown, are "
    "exact.",
    "The size of the training set is treated as public: sampling rate and number of steps follow from it.",
)


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The content of `privacy.json`.

    Attributes:
        private: whether training was differentially private.
        status: `planned`, `running` (ε then covers all steps up to the next checkpoint), `stopped` or `finished`.
        epsilon: ε spent at `delta`, by `accountant`; None without privacy, which means no bound at all.
        delta: δ.
        accountant: `pld` or `rdp`.
        epsilon_pld: the same steps by privacy-loss distributions.
        epsilon_rdp: the same steps by Rényi accounting.
        noise_multiplier: σ.
        clipping: `flat`, `automatic`, `per-layer` or `adaptive`.
        clipping_norm: C; of the first step where clipping is adaptive.
        clipping_count_noise: σ_b on adaptive clipping's counts, in records; its share is inside ε.
        sampling: `poisson`, or `shuffled` without privacy.
        sampling_rate: q.
        expected_batch_size: q·N.
        steps: draws of batch and noise that are counted: redone steps count again in a release run.
        steps_planned: draws that the budget was made for.
        train_size: N, in records.
        adjacency: the neighbouring relation.
        unit_of_privacy: what a record is.
        noise_source: `os-entropy` or `seeded`.
        sampling_source: likewise.
        outside_accounting: every use of private data that ε does not cover.
        notes: what else must be known to read ε rightly.
    """

    private: bool
    status: str
    epsilon: float | None = None
    delta: float | None = None
    accountant: str | None = None
    epsilon_pld: float | None = None
    epsilon_rdp: float | None = None
    noise_multiplier: float | None = None
    clipping: str | None = None
    clipping_norm: float | None = None
    clipping_count_noise: float | None = None
    sampling: str
    sampling_rate: float
    expected_batch_size: int
    steps: int
    steps_planned: int
    train_size: int
    adjacency: str | None = None
    unit_of_privacy: str
    noise_source: str | None = None
    sampling_source: str
    outside_accounting: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The ledger as JSON's types, in the order above."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class LedgerFacts:
    """What stays the same over a run.

    Attributes:
        unit: what a record is.
        source: where noise and batches come from, `os-entropy` or `seeded`.
        clipping: how gradients are held to the clipping norm; None without privacy.
        clipping_count_noise: σ_b of adaptive clipping; None for others.
        outside: sentences for `outside_accounting` beyond those that hold for every run.
        notes: sentences for `notes`.
    """

    unit: str
    source: Literal["os-entropy", "seeded"]
    clipping: str | None = None
    clipping_count_noise: float | None = None
    outside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def private_ledger(budget: Budget, facts: LedgerFacts, *, steps: int, status: str) -> Ledger:
    """The ledger of a private run after `steps` draws."""
    spent = budget.spent(steps)
    notes = list(facts.notes)
    if facts.source == "seeded":
        notes.insert(
            0,
            "Noise and batches come from a seed: anyone who knows the seed can remove the noise, and then "
            "ε is void. For research only; release nothing that was trained this way.",
        )
    return Ledger(
        private=True,
        status=status,
        epsilon=spent.epsilon,
        delta=budget.delta,
        accountant=budget.accountant,
        epsilon_pld=spent.epsilon_pld,
        epsilon_rdp=spent.epsilon_rdp,
        noise_multiplier=budget.noise_multiplier,
        clipping=facts.clipping,
        clipping_norm=budget.clipping_norm,
        clipping_count_noise=facts.clipping_count_noise,
        sampling="poisson",
        sampling_rate=budget.sampling_rate,
        expected_batch_size=budget.expected_batch_size,
        steps=steps,
        steps_planned=budget.steps,
        train_size=budget.train_size,
        adjacency="add-or-remove-one",
        unit_of_privacy=facts.unit,
        noise_source=facts.source,
        sampling_source=facts.source,
        outside_accounting=(*OUTSIDE_EVERY_RUN, *facts.outside),
        notes=tuple(notes),
    )


def plain_ledger(
    facts: LedgerFacts, *, train_size: int, batch_size: int, steps: int, steps_planned: int, status: str
) -> Ledger:
    """The ledger of a run without privacy: it says that nothing is promised."""
    everything = "Everything: this run is not private, and weights, metrics and curves may reveal any training sample."
    return Ledger(
        private=False,
        status=status,
        sampling="shuffled",
        sampling_rate=batch_size / train_size,
        expected_batch_size=batch_size,
        steps=steps,
        steps_planned=steps_planned,
        train_size=train_size,
        unit_of_privacy=facts.unit,
        sampling_source="seeded",
        outside_accounting=(everything, *facts.outside),
        notes=facts.notes,
    )


def describe_release(ledger: Ledger) -> Sequence[str]:
    """What may leave the house, in plain words for the end of a run."""
    if not ledger.private:
        return ("This run is not private: keep the whole run folder in the house.",)
    if ledger.noise_source == "seeded":
        return ("Noise came from a seed: keep the whole run folder in the house.",)
    return (
        "model.eqx and privacy.json may be released under ε as stated; all else in the run folder stays in the house.",
    )
