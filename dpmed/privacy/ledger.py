"""The privacy ledger: what a run has spent, and what its ε does not cover.

A single run states what it promises here and nowhere else; what several runs promise together is stated by
`dpmed.inference.composed_ledger`, and what a selection promises by `dpmed.workflows.train.several.selection`, in the
same `privacy.json`. ε is written as computed, never rounded down; every other use of private data is listed in
`outside_accounting`, one sentence each. The ledger may leave the institution together
with the model, so it contains nothing computed from private data except the number of training records: anything else
that a run knows about its patients is in `internal.json`.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from dpmed.files import utc_now
from dpmed.privacy.budget import Budget
from dpmed.privacy.constant_sign import constant_sign_upper
from dpmed.privacy.rero import reconstruction
from dpmed.privacy.tradeoff import Composition
from dpmed.rounding import rounded_up

# Every ε, δ and bound that dpmed states is for this neighbouring relation.
ADJACENCY = "add-or-remove-one"
OUTSIDE_EVERY_RUN = (
    "Validation and test metrics are computed exactly; ε says nothing about validation and test samples.",
    "The training loss in the progress display, metrics.csv and curves.png is computed from the training samples "
    "without noise.",
    "Counts of rejected (non-finite) and clipped gradients and the number of records of a step, where shown, are "
    "exact.",
    "The size of the training set is treated as public: sampling rate and number of steps follow from it.",
)
_GROUPS = (2, 3, 5)


@dataclass(frozen=True, kw_only=True)
class Selected:
    """The selection that a run is a trial of: its model costs what choosing it costs, never just its own steps.

    Attributes:
        distribution: `geometric`, if the number of trials was drawn: then only the best may be released; `fixed`, if
            there were exactly `mean_trials` and ε covers all of them.
        mean_trials: N; of a fixed number, those that were deleted are counted too.
        epsilon: ε of releasing the best, at the run's δ.
        chosen: whether the selection has ended with this run as the best.
    """

    distribution: Literal["geometric", "fixed"]
    mean_trials: int
    epsilon: float
    chosen: bool = False


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """The content of `privacy.json`.

    Attributes:
        private: whether training was differentially private.
        status: `planned`, `running` (ε then covers all steps up to the next checkpoint), `stopped` or `finished`.
        epsilon: ε spent at `delta`, by `accountant`, and for a trial of a selection ε of releasing the best; None
            without privacy, meaning no bound at all.
        delta: δ.
        accountant: `pld` or `rdp`.
        epsilon_pld: the same steps by privacy-loss distributions.
        epsilon_rdp: the same steps by Rényi accounting.
        epsilon_dp_accounting: the same steps by Google's dp-accounting, the second opinion on `epsilon_pld`; None while
            a run is in progress, or if dp-accounting cannot compute it.
        noise_multiplier: σ.
        clipping: `flat`, `automatic`, `per-layer` or `adaptive`.
        clipping_norm: C; with adaptive clipping, that of the first step.
        clipping_count_noise: σ_b of the counts of adaptive clipping, in records; their cost is included in ε.
        sampling: `poisson`, or `shuffled` without privacy.
        sampling_rate: q.
        expected_batch_size: q·N.
        steps: draws of batch and noise counted; repeated steps count again in a release run, and all planned ones once
            it has finished, also if early stopping ended it before.
        steps_planned: draws that the budget was computed for.
        train_size: N, in records.
        adjacency: the neighbouring relation.
        unit_of_privacy: what a record is.
        data: the data set in public terms: its name, task and input shape.
        phantom: for a run without privacy, which phantom the data are, according to `phantom.json`; None for all other
            data, and with privacy, since it would depend on whether a patient's file is among them.
        noise_source: `os-entropy` or `seeded`.
        sampling_source: likewise.
        outside_accounting: every use of private data that ε does not cover.
        notes: what else must be known to interpret ε correctly.
        run_id: a random name, drawn when the run begins, that tells it from another run in the same folder.
        siblings: other runs of the same call on the same patients, by folder name; their composed ε is in the
            `privacy.json` of the parent folder.
        selection: the selection that the run is a trial of; None for all others.
        model_sha256: digest of `model.eqx`, to which this ledger belongs; None until the run has finished.
        config_sha256: digest of `config.toml`.
        version: version of dpmed.
        created: when the ledger was written, UTC.
    """

    private: bool
    status: str
    epsilon: float | None = None
    delta: float | None = None
    accountant: str | None = None
    epsilon_pld: float | None = None
    epsilon_rdp: float | None = None
    epsilon_dp_accounting: float | None = None
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
    data: str
    phantom: str | None = None
    noise_source: str | None = None
    sampling_source: str
    outside_accounting: tuple[str, ...]
    notes: tuple[str, ...]
    run_id: str | None = None
    siblings: tuple[str, ...] = ()
    selection: Selected | None = None
    model_sha256: str | None = None
    config_sha256: str | None = None
    version: str
    created: str

    def to_json(self) -> dict[str, Any]:
        """The ledger as JSON types, in the order above."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class LedgerFacts:
    """What stays the same throughout a run.

    Attributes:
        unit: what a record is.
        source: where noise and batches come from, `os-entropy` or `seeded`.
        clipping: how gradients are limited to the clipping norm; None without privacy.
        clipping_count_noise: σ_b of adaptive clipping; None for other kinds.
        outside: sentences for `outside_accounting` in addition to those that apply to every run.
        notes: sentences for `notes`.
        data: the data set in public terms.
        phantom: which phantom the data are, for runs without privacy; None for all other data.
        run_id: the random name of the run; None for what is only planned.
        siblings: folder names of the other runs of the same call.
        selection: the selection that the run is a trial of; None for all others.
        version: of dpmed.
    """

    unit: str
    data: str
    version: str
    source: Literal["os-entropy", "seeded"]
    clipping: str | None = None
    clipping_count_noise: float | None = None
    outside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    run_id: str | None = None
    siblings: tuple[str, ...] = ()
    selection: Selected | None = None
    phantom: str | None = None


@dataclass(frozen=True, kw_only=True)
class Digests:
    """The files that the ledger is tied to.

    Attributes:
        config: SHA-256 of `config.toml`; None for a plan.
        model: SHA-256 of `model.eqx`; None until there is one.
    """

    config: str | None = None
    model: str | None = None


def private_ledger(
    budget: Budget, facts: LedgerFacts, *, steps: int, status: str, digests: Digests | None = None
) -> Ledger:
    """The ledger of a private run after `steps` draws."""
    spent = budget.spent(steps)
    notes = list(facts.notes)
    digests = digests or Digests()
    # Computed at the end only, not at every checkpoint: it may take a second.
    opinion = None if status == "running" else budget.second_opinion(steps)
    if facts.source == "seeded":
        notes.insert(
            0,
            "Noise and batches come from a seed: anyone who knows the seed can remove the noise, and then "
            "ε is void. For research only; do not release anything trained this way.",
        )
    if status == "stopped":
        notes.append(
            "The run was stopped by hand: ε is that of the steps made, if what the run had shown was no reason to "
            f"stop. Otherwise it is that of all {budget.steps} planned steps, {rounded_up(budget.epsilon)}."
        )
    epsilon, accountant = spent.epsilon, budget.accountant
    if facts.selection is not None:
        epsilon = max(epsilon, facts.selection.epsilon)
        accountant = "rdp" if facts.selection.distribution == "geometric" else "pld"
    return Ledger(
        private=True,
        status=status,
        epsilon=epsilon,
        delta=budget.delta,
        accountant=accountant,
        epsilon_pld=spent.epsilon_pld,
        epsilon_rdp=spent.epsilon_rdp,
        epsilon_dp_accounting=None if opinion is None else opinion.epsilon,
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
        adjacency=ADJACENCY,
        unit_of_privacy=facts.unit,
        noise_source=facts.source,
        sampling_source=facts.source,
        outside_accounting=(*OUTSIDE_EVERY_RUN, *facts.outside),
        notes=tuple(notes),
        data=facts.data,
        run_id=facts.run_id,
        siblings=facts.siblings,
        selection=facts.selection,
        model_sha256=digests.model,
        config_sha256=digests.config,
        version=facts.version,
        created=utc_now(),
    )


def plain_ledger(
    facts: LedgerFacts,
    *,
    train_size: int,
    batch_size: int,
    steps: int,
    steps_planned: int,
    status: str,
    digests: Digests | None = None,
) -> Ledger:
    """The ledger of a run without privacy, which says that nothing is promised."""
    digests = digests or Digests()
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
        data=facts.data,
        phantom=facts.phantom,
        run_id=facts.run_id,
        siblings=facts.siblings,
        model_sha256=digests.model,
        config_sha256=digests.config,
        version=facts.version,
        created=utc_now(),
    )


def describe_release(ledger: Ledger) -> Sequence[str]:
    """What may leave the institution, in plain words, shown at the end of a run."""
    if not ledger.private:
        return ("This run is not private: keep the whole run folder within your institution.",)
    if ledger.noise_source == "seeded":
        return ("The noise came from a seed: keep the whole run folder within your institution.",)
    if ledger.selection is not None and ledger.selection.distribution == "geometric":
        return (
            "This is one trial of a selection: of all trials, only the one that it chooses in the end may be released.",
        )
    return (
        "model.eqx and privacy.json may be released under the stated ε; everything else in the run folder must stay "
        "within your institution.",
    )


def several_images_note(unit: str, *, epsilon: float, delta: float) -> str:
    """What an ε per image means for a unit with several images, for runs on such data sets.

    Args:
        unit: `patient`, `lesion` or `scan`.
        epsilon: ε for one image.
        delta: δ for one image.
    """
    bounds = []
    for size in _GROUPS:
        group_epsilon, group_delta = group_privacy(epsilon, delta, size=size)
        known = group_delta < 1
        bound = f"({rounded_up(group_epsilon)}, {rounded_up(group_delta, 2)})" if known else "no (ε, δ) with δ < 1"
        bounds.append(f"{size} images: {bound}")
    return (
        f"The unit of privacy is the image. A {unit} with several images in the training set is protected less than "
        f'the stated ε; group privacy guarantees for {"; ".join(bounds)}. Set privacy.unit = "{unit}" to protect '
        f"{unit}s. internal.json says how many {unit}s have several images."
    )


def assumption_notes(composition: Composition, *, prior: float, max_risk: float) -> tuple[str, ...]:
    """What a ledger must say about a run whose noise was calibrated to a reconstruction risk."""
    bound = reconstruction(replace(composition, adversary="worst-case"), prior).upper
    first = (
        f"The noise was calibrated to a reconstruction risk of at most {max_risk:g} at prior κ = {prior:.4g} for the "
        f"{composition.adversary} adversary."
    )
    if composition.adversary == "worst-case":
        return (first,)
    constant = constant_sign_upper(composition, prior)
    return (
        first,
        "This relies on an assumption about the attacker, namely not knowing the direction of the patient's "
        "gradient (a χ² test in each step): it is not a differential-privacy guarantee. The stated ε holds without it.",
        "The direction is assumed to be unknown afresh in each step. An attacker who only knows that it stays the "
        f"same throughout training can do more: at most {rounded_up(constant)} at the same κ.",
        f"Without the assumption, the bound for the worst-case adversary at the same κ is {rounded_up(bound)}.",
    )


def group_privacy(epsilon: float, delta: float, *, size: int) -> tuple[float, float]:
    """What an (ε, δ) for one record guarantees for `size` records together.

    Args:
        epsilon: ε >= 0 of one record.
        delta: δ of one record, in [0, 1].
        size: k >= 1 records that belong together.

    Returns:
        kε, and δ (1 + e^ε + … + e^{(k-1)ε}), which is above 1 if the bound says nothing, and infinite if it overflows.

    Source: Vadhan (2017), The Complexity of Differential Privacy, Lemma 2.2, with the sum not rounded up.
    """
    if size < 1 or epsilon < 0:
        raise ValueError(f"Expected {size=} >= 1 and {epsilon=} >= 0.")
    if delta == 0 or epsilon == 0:
        return size * epsilon, delta * size
    growth = (size - 1) * epsilon + math.log(-math.expm1(-size * epsilon)) - math.log(-math.expm1(-epsilon))
    logarithm = math.log(delta) + growth
    return size * epsilon, math.exp(logarithm) if logarithm < math.log(1e300) else math.inf
