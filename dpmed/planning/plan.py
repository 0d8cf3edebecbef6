"""The plan of a training run: data, model, budget and steps, settled before anything is trained.

Nothing here changes afterwards, and the config is never modified: everything derived from it is in `Plan`.
"""

from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from dpmed.config.model import CustomModel
from dpmed.config.schema import Config
from dpmed.data.base import Dataset, Info, Split, require_column
from dpmed.data.build import build_dataset
from dpmed.data.split import split_dataset
from dpmed.data.units import UnitSummary, members_by_unit, summarise_units, unit_remedy
from dpmed.dpsgd.clipping import Clipping
from dpmed.errors import InputError
from dpmed.metrics.evaluate import check_metrics, main_metric
from dpmed.models.build import BuiltModel, build_model
from dpmed.planning.clipping import build_clipping, describe_clipping, require_noise
from dpmed.planning.initial_weights import begun_on, start_warnings, with_weights_file
from dpmed.planning.ledger_facts import ledger_facts
from dpmed.planning.precision import precision_warnings, with_settled_precision
from dpmed.planning.signal import noise_to_signal
from dpmed.planning.slow_norms import NormsByLayer, norms_by_layer
from dpmed.planning.solved_budget import check_batch_size, solve
from dpmed.privacy.budget import Budget, steps_per_epoch
from dpmed.privacy.ledger import LedgerFacts
from dpmed.progress import Progress
from dpmed.rounding import rounded_up, stated_budget
from dpmed.runtime.programs import keep_no_programs
from dpmed.training.build import check_objective
from dpmed.training.optim import schedule_warnings

_LARGEST_MICROBATCH = 1024
# If records are padded to several numbers of views, the last microbatch of each is only partly filled. If microbatches
# were as large as the batch, a step would compute more views than with all records padded to the most.
_PIECES_OF_A_BATCH = 8
_ROUND_SIZES = (768, 512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)
_TRAIN_SIZE_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What will be trained, on which data, for how long and at which cost in privacy.

    Attributes:
        config: the config as read.
        dataset: random access to samples.
        split: which samples are used for training, validation and test.
        members: for each training record, its samples.
        model: the freshly initialised model.
        budget: the solved budget; None without privacy.
        clipping: how each record's gradient is clipped; None without privacy.
        facts: what the ledger says about the whole run; public.
        units: how the training samples are distributed over units; exact, for `internal.json`.
        steps: draws planned.
        steps_per_epoch: draws per epoch.
        microbatches: candidates for the records on the device at once, descending: the first that fits is used.
        norms: how per-record gradients of a user's own network are computed; None for shipped networks, whose norms are
            fast, and without privacy.
        warnings: what the user should know before training starts.
    """

    config: Config
    dataset: Dataset
    split: Split
    members: list[Int[np.ndarray, " _"]]
    model: BuiltModel
    budget: Budget | None
    clipping: Clipping | None
    facts: LedgerFacts
    units: UnitSummary
    steps: int
    steps_per_epoch: int
    microbatches: tuple[int, ...]
    norms: NormsByLayer | None
    warnings: tuple[str, ...]

    @property
    def train_size(self) -> int:
        """Number of training records N."""
        return len(self.members)

    @property
    def steps_per_checkpoint(self) -> int:
        """Steps between checkpoints."""
        return self.config.training.checkpoint_steps or self.steps_per_epoch

    @property
    def main_metric(self) -> str:
        """The metric that curves show and early stopping monitors."""
        return self.config.evaluation.main_metric or main_metric(self.dataset.info.task)

    @property
    def class_counts(self) -> Int[np.ndarray, " classes"] | None:
        """Number of training samples of each class; None if samples have no single class."""
        labels, classes = self.dataset.labels, len(self.dataset.info.class_names)
        if labels is None or classes == 0:
            return None
        return np.bincount(labels[self.split.train], minlength=classes)

    def smaller_microbatch(self, than: int) -> int | None:
        """The largest microbatch of at most half as many records, for when memory runs out; None if there is none."""
        return next((size for size in self.microbatches if 2 * size <= than), None)

    def describe(self) -> dict[str, str]:
        """The plan as names and values, for the user."""
        config, split, info = self.config, self.split, self.dataset.info
        shape = "x".join(map(str, info.input_shape))
        facts: dict[str, Any] = {
            "data": f"{info.name}: {info.task}, {shape}" + _outputs(info),
            "samples": f"{len(split.train)} train, {len(split.validation)} validation, {len(split.test)} test",
            "model": f"{config.model.name}, {self.model.parameters:,} parameters, {config.training.precision}",
            "steps": f"{self.steps} ({self.steps / self.steps_per_epoch:g} epochs), microbatch {self._microbatch()}",
        }
        budget, clipping, privacy = self.budget, self.clipping, config.privacy
        if budget is None or clipping is None or privacy is None:
            return {**facts, "privacy": "none: this run may reveal any training sample"}
        other = "rdp" if budget.accountant == "pld" else "pld"
        other_epsilon = budget.epsilon_rdp if other == "rdp" else budget.epsilon_pld
        return {
            **facts,
            "sampling": f"Poisson, rate {budget.sampling_rate:.4g}, expected batch size {budget.expected_batch_size}",
            "privacy": f"{stated_budget(budget.epsilon, budget.delta)} by {budget.accountant.upper()} "
            f"({rounded_up(other_epsilon)} by {other.upper()}), per {self.facts.unit}",
            "clipping": describe_clipping(privacy, clipping, budget),
            "noise": f"σ = {budget.noise_multiplier:.4g}, from {self.facts.source}",
            "signal": noise_to_signal(budget, clipping, parameters=self.model.parameters).describe(),
            **({} if self.norms is None else {"norms": self.norms.describe(self.microbatches[0])}),
        }

    def _microbatch(self) -> str:
        largest, *others = self.microbatches
        return f"of at most {largest}" if others else str(largest)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON's types, for `--dry-run --json`."""
        budget = self.budget
        return {
            "samples": {name: len(getattr(self.split, name)) for name in ("train", "validation", "test")},
            "train_size": self.train_size,
            "parameters": self.model.parameters,
            "precision": self.config.training.precision,
            "steps": self.steps,
            "steps_per_epoch": self.steps_per_epoch,
            "microbatch": self.microbatches[0],
            "private": budget is not None,
            "epsilon": budget and budget.epsilon,
            "epsilon_pld": budget and budget.epsilon_pld,
            "epsilon_rdp": budget and budget.epsilon_rdp,
            "epsilon_dp_accounting": _second_opinion(budget),
            "delta": budget and budget.delta,
            "noise_multiplier": budget and budget.noise_multiplier,
            "clipping": self.facts.clipping,
            "sampling_rate": budget and budget.sampling_rate,
            "slow_norms": [] if self.norms is None else [asdict(one) for one in self.norms.slow],
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Gathered:
    """What a plan, or advice before it, is based on: everything that does not depend on batches, length and noise.

    Attributes:
        config: the config as read, with its precision settled.
        dataset: random access to samples.
        split: which samples are used for training, validation and test.
        members: for each training record, its samples.
        model: the freshly initialised model.
    """

    config: Config
    dataset: Dataset
    split: Split
    members: list[Int[np.ndarray, " _"]]
    model: BuiltModel


def make_plan(config: Config, progress: Progress) -> Plan:
    """Read the data set, build the model and solve the budget.

    Raises:
        InputError: data, model and privacy do not fit together, or the budget cannot be met.
    """
    return plan_of(gather(config, progress))


def gather(config: Config, progress: Progress) -> Gathered:
    """Read the data set and build the model.

    Raises:
        InputError: data and model do not fit together.
    """
    config = with_settled_precision(config)
    if not config.training.keep_programs:
        keep_no_programs()
    dataset = build_dataset(config.data, progress=progress)
    split = split_dataset(dataset, config.data, seed=config.training.seed)
    members = members_by_unit(dataset, split.train, unit=config.unit, max_samples=config.data.max_samples_per_unit)
    check_metrics(config.evaluation.metrics, config.evaluation.main_metric, task=dataset.info.task)
    if config.evaluation.break_down_by is not None:
        require_column(dataset.columns(), config.evaluation.break_down_by, where="evaluation.break_down_by")
    _check_known_size(config, len(members))
    model = _build(config, dataset)
    return Gathered(config=config, dataset=dataset, split=split, members=members, model=model)


def plan_of(gathered: Gathered) -> Plan:
    """Solve the budget for what was gathered, and settle the rest.

    Raises:
        InputError: the budget cannot be met, or data, loss and augmentation do not go together.
    """
    config, dataset, split = gathered.config, gathered.dataset, gathered.split
    members, model = gathered.members, gathered.model
    check_batch_size(config, len(members))
    budget = solve(config, len(members))
    if budget is not None and config.privacy is not None:
        require_noise(config.privacy, budget)
        budget.require_agreement()
    clipping = None if config.privacy is None or budget is None else build_clipping(config.privacy, budget)
    epoch = steps_per_epoch(len(members), config.training.batch_size)
    steps = epoch * (config.training.epochs or 0) if budget is None else budget.steps
    plan = Plan(
        config=config,
        dataset=dataset,
        split=split,
        members=members,
        model=model,
        budget=budget,
        clipping=clipping,
        facts=ledger_facts(config, dataset, budget=budget, clipping=clipping, changed=model.pretrained_notes),
        units=summarise_units(dataset, split.train),
        steps=steps,
        steps_per_epoch=epoch,
        microbatches=_microbatches(config, len(members)),
        norms=norms_by_layer(model, dataset.info.input_shape)
        if budget is not None and isinstance(config.model, CustomModel)
        else None,
        warnings=(
            *_warnings(config, len(members)),
            *(f"model.pretrained: {note}." for note in model.pretrained_notes),
            *_unit_warnings(config, dataset.info),
            *_class_warnings(dataset, split),
            *precision_warnings(config),
            *schedule_warnings(config.schedule, steps=steps, steps_per_epoch=epoch),
            *_signal_warnings(budget, clipping, model),
            *start_warnings(config),
            *begun_on(config, dataset, split.test),
        ),
    )
    # Here, since a cohort file counts a run from before its first step on, and nobody gets that back.
    check_objective(config, dataset.info, model, class_counts=plan.class_counts)
    return plan


def _signal_warnings(budget: Budget | None, clipping: Clipping | None, model: BuiltModel) -> tuple[str, ...]:
    if budget is None or clipping is None:
        return ()
    found = noise_to_signal(budget, clipping, parameters=model.parameters)
    return found.warnings(budget, parameters=model.parameters)


def _outputs(info: Info) -> str:
    kind = {"multi-label": "labels", "regression": "targets"}.get(info.task, "classes")
    count = len(info.output_names)
    return f", {count} {kind.removesuffix('s') if count == 1 and kind != 'classes' else kind}" if count else ""


def _second_opinion(budget: Budget | None) -> float | None:
    opinion = None if budget is None else budget.second_opinion(budget.steps)
    return None if opinion is None else opinion.epsilon


def _check_known_size(config: Config, train_size: int) -> None:
    known = config.data.train_size
    # σ and ε are computed from the actual size; a split by patients may miss the expected size by a few.
    if known is not None and abs(known - train_size) > _size_tolerance(config, known):
        raise InputError(
            f"says {known}, but the training split has {train_size} records: is this the right data set?",
            where="data.train_size",
            remedy=f"Set it to {train_size} or leave it out.",
        )


def _size_tolerance(config: Config, train_size: int) -> float:
    data = config.data
    if data.split_by == "stratified":
        return _TRAIN_SIZE_TOLERANCE * train_size
    # By hash, each unit is assigned independently, so the number of training units is binomial.
    kept_out = 1 - (1 - data.test_fraction) * (1 - data.validation_fraction)
    return max(_TRAIN_SIZE_TOLERANCE * train_size, 4 * (train_size * kept_out) ** 0.5)


def _build(config: Config, dataset: Dataset) -> BuiltModel:
    info = dataset.info
    key = jax.random.key(config.training.seed)
    outputs = info.outputs(config.loss.name)
    model = build_model(with_weights_file(config.model), info.input_shape, outputs=outputs, task=info.task, key=key)
    if config.privacy is not None and model.mixes_samples:
        raise InputError(
            "batch normalisation computes its statistics over the batch, so one patient's image changes the "
            "gradients of all others and no clipping bounds its influence; it cannot be trained with privacy",
            where="model",
            remedy='Use group norm: normalisation = "group".',
        )
    return model


def _microbatches(config: Config, train_size: int) -> tuple[int, ...]:
    batch_size = config.training.batch_size
    if config.privacy is None:
        return _full_microbatches(config, batch_size)
    if config.training.microbatch != "auto":
        return (min(config.training.microbatch, train_size),)
    wanted = min(poisson_microbatch(batch_size, train_size), _LARGEST_MICROBATCH)
    if config.privacy.unit != "image" and (config.data.max_samples_per_unit or 1) > 1:
        wanted = min(wanted, -(-batch_size // _PIECES_OF_A_BATCH))
    return (wanted, *(size for size in _ROUND_SIZES if size < wanted))


def poisson_microbatch(batch_size: int, train_size: int) -> int:
    """A microbatch that holds nearly every Poisson batch at once: four standard deviations above the expected size."""
    rate = batch_size / train_size
    largest = min(train_size, batch_size + 4 * (batch_size * (1 - rate)) ** 0.5 + 1)
    return -(-int(largest) // 8) * 8


def _full_microbatches(config: Config, batch_size: int) -> tuple[int, ...]:
    asked = config.training.microbatch
    if asked == "auto":
        # Batch norm would compute different statistics for a batch in pieces.
        mixes = getattr(config.model, "normalisation", None) == "batch"
        pieces = (1,) if mixes else range(1, batch_size + 1)
        return tuple(batch_size // count for count in pieces if batch_size % count == 0)
    if batch_size % asked:
        raise InputError(
            f"{asked} does not divide the batch size {batch_size}",
            where="training.microbatch",
            remedy="Without privacy every microbatch must be full, since padding would enter batch norm's statistics.",
        )
    return (asked,)


def _class_warnings(dataset: Dataset, split: Split) -> tuple[str, ...]:
    names = dataset.info.class_names
    if dataset.labels is None or dataset.info.task != "classification":
        return ()
    found = []
    for part, numbers in split.parts().items():
        counts = np.bincount(dataset.labels[numbers], minlength=len(names))
        absent = [name for name, count in zip(names, counts, strict=True) if count == 0]
        if absent:
            found.append(f"The {part} split has no sample of {', '.join(absent)}, so it says nothing about them.")
    return tuple(found)


def _unit_warnings(config: Config, info: Info) -> tuple[str, ...]:
    if config.privacy is None or config.privacy.unit == "patient" or not info.patients_unknown:
        return ()
    return (
        f"It is unknown which samples of {info.name} share a patient: ε protects one {config.privacy.unit}, and a "
        "patient with several is protected less. " + unit_remedy(info.name, "patient"),
    )


def _warnings(config: Config, train_size: int) -> tuple[str, ...]:
    privacy = config.privacy
    warnings = []
    known = config.data.train_size
    if known is not None and known != train_size:
        warnings.append(
            f"data.train_size = {known}, but the training split has {train_size} records; σ and ε are computed for "
            f"{train_size}."
        )
    if privacy is not None and privacy.delta >= 1 / train_size:
        warnings.append(
            f"privacy.delta = {privacy.delta:g} is not below 1 / training records = {1 / train_size:.2g}: a "
            "mechanism that publishes one random patient in the clear would satisfy it. Choose a smaller δ."
        )
    if privacy is not None and privacy.noise_source == "seeded":
        warnings.append("Noise and batches come from the seed: for research only; nothing of this run may be released.")
    return tuple(warnings)
