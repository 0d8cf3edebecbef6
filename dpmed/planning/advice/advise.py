"""Advice on a private training before it is begun, from public facts alone.

What is looked at: the config, the number N of training records (which the ledger states too), the shape of a sample and
the number of outputs. No file of a sample is opened, and no label is looked at but where the config has the split
stratified by labels, which fixes N within a few records.

Learning rate and clipping norm. With the clipping norm at or below 1, results hardly depend on it once the learning
rate follows (De et al., 2022): a larger one is brought down to 1. Of the learning rate no rule is known that holds for
every network; what is known is that learning rate times number of steps is the quantity to keep (Panda et al., 2024,
"A new linear scaling rule for private adaptive hyperparameter optimization"), and that plain gradient descent moves in
proportion to C (Mohapatra et al., 2022, "The role of adaptive optimizers for honest private hyperparameter selection").
So the config's own learning rate is rescaled by both, by no more than a factor of three: the bound is our own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dpmed.config.privacy import PrivacyConfig
from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.planning.advice.grid import Row, grid_around
from dpmed.planning.advice.sizes import advised_sizes
from dpmed.planning.advice.step_time import StepTime, measure_step
from dpmed.planning.advice.verdict import Verdict, judge
from dpmed.planning.batch_size import budget_request, naming_keys
from dpmed.planning.plan import Gathered, plan_of
from dpmed.privacy.budget import BudgetRequest, solve_budget, steps_per_epoch
from dpmed.progress import Progress

_LARGEST_CLIPPING_NORM = 1.0
_LARGEST_CHANGE = 3.0
_MOVED_BY_NORM = ("sgd",)
_HELD_BY_NORM = ("flat", "per-layer")


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What published rules suggest for a config, and what can be expected of it.

    Attributes:
        unit: of privacy: what a record is.
        parameters: d, how many numbers are trained.
        advised: batch size and length, with their noise.
        own: the config's; None where its batch is larger than the training set or its budget cannot be met.
        rows: around both.
        learning_rate: to begin with.
        clipping_norm: C.
        overrides: `KEY=VALUE` for the config, such that its plan is the advised row.
        verdict: whether the plan can work.
        step: what a step costs here.
    """

    unit: str
    parameters: int
    advised: Row
    own: Row | None
    rows: tuple[Row, ...]
    learning_rate: float
    clipping_norm: float
    overrides: tuple[str, ...]
    verdict: Verdict
    step: StepTime

    def to_json(self) -> dict[str, Any]:
        """The advice as JSON's types."""
        budget = self.advised.sizes.budget
        return {
            "train_size": budget.train_size,
            "unit_of_privacy": self.unit,
            "parameters": self.parameters,
            "delta": budget.delta,
            "accountant": budget.accountant,
            "advice": {
                **row_values(self.advised),
                "learning_rate": self.learning_rate,
                "clipping_norm": self.clipping_norm,
            },
            "set": list(self.overrides),
            "own": None if self.own is None else row_values(self.own),
            "grid": [row_values(row) for row in self.rows],
            "verdict": self.verdict.word,
            "reasons": list(self.verdict.sentences),
            "microbatch": self.step.microbatch,
            "step_memory_bytes": self.step.memory_bytes,
            "record_seconds": self.step.record_seconds,
            "update_seconds": self.step.update_seconds,
        }


def row_values(row: Row) -> Mapping[str, Any]:
    """A row as names and numbers: a line of `advice.csv`."""
    budget = row.sizes.budget
    return {
        "batch_size": row.sizes.batch_size,
        "epochs": row.sizes.epochs,
        "steps": budget.steps,
        "sampling_rate": budget.sampling_rate,
        "noise_multiplier": budget.noise_multiplier,
        "epsilon": budget.epsilon,
        "noise_to_signal_step": row.noise.step,
        "noise_to_signal_training": row.noise.training,
        "seconds": row.seconds,
    }


def advise(gathered: Gathered, progress: Progress) -> Advice:
    """What published rules suggest for a private config on this machine.

    Args:
        gathered: its config, data and model.
        progress: tells the user.

    Raises:
        InputError: the config is not private, or there is no noise that meets what it asks for.
    """
    config, size, parameters = gathered.config, len(gathered.members), gathered.model.parameters
    privacy = config.privacy
    if privacy is None:
        raise InputError("is missing, and advice is on private training", where="privacy")
    with naming_keys():
        request = request_to_meet(config, size)
        sizes = advised_sizes(request)
    own = _own_sizes(config, size)
    rows = grid_around(sizes, own, request, privacy, parameters=parameters, progress=progress)
    found = {(row.sizes.batch_size, row.sizes.epochs): row for row in rows}
    advised = found.get((sizes.batch_size, sizes.epochs))
    if advised is None:
        raise InputError(
            "no batch size and length leaves noise for both gradients and counts",
            where="privacy.clipping",
            remedy='Set privacy.clipping = "flat".',
        )
    current = None if own is None else found.get(own)
    learning_rate, clipping_norm = _rates(config, privacy, advised, current)
    overrides = _overrides(config, advised, request, learning_rate=learning_rate, clipping_norm=clipping_norm)
    step = measure_step(plan_of(replace(gathered, config=with_sizes_of(config, advised, request))))
    timed = {key: replace(row, seconds=_seconds(step, row)) for key, row in found.items()}
    return Advice(
        unit=gathered.unit,
        parameters=parameters,
        advised=timed[sizes.batch_size, sizes.epochs],
        own=None if own is None else timed.get(own),
        rows=tuple(timed.values()),
        learning_rate=learning_rate,
        clipping_norm=clipping_norm,
        overrides=overrides,
        verdict=judge(advised, current, request, privacy, parameters=parameters),
        step=step,
    )


def request_to_meet(config: Config, train_size: int) -> BudgetRequest:
    """What must be met whatever batch size and length: the config's ε or risk, or the ε that its own noise spends.

    Raises:
        InputError: the config has noise and epochs, but its batch is larger than the training set.
    """
    request = budget_request(config, train_size)
    if request is None:
        raise ValueError("Expected a private config.")
    if request.epsilon is None and request.max_reconstruction_risk is None:
        return replace(request, epsilon=solve_budget(request).epsilon, noise_multiplier=None)
    return replace(request, noise_multiplier=None)


def with_sizes_of(config: Config, row: Row, request: BudgetRequest) -> Config:
    """The config with a row's batch size and epochs, meeting the same ε."""
    training = {"batch_size": row.sizes.batch_size, "epochs": row.sizes.epochs}
    privacy = {"epsilon": request.epsilon, "noise_multiplier": None}
    return config.model_copy(
        update={
            "training": config.training.model_copy(update=training),
            "privacy": config.privacy and config.privacy.model_copy(update=privacy),
        }
    )


def _own_sizes(config: Config, train_size: int) -> tuple[int, int] | None:
    request = budget_request(config, train_size)
    if request is None or request.expected_batch_size > train_size:
        return None
    if request.epochs is not None:
        return request.expected_batch_size, request.epochs
    try:
        budget = solve_budget(request)
    except InputError:
        return None
    return request.expected_batch_size, budget.steps // steps_per_epoch(train_size, request.expected_batch_size)


def _rates(config: Config, privacy: PrivacyConfig, advised: Row, own: Row | None) -> tuple[float, float]:
    """Learning rate and clipping norm to begin with."""
    norm, factor = privacy.clipping_norm, 1.0
    if privacy.clipping.name in _HELD_BY_NORM and norm > _LARGEST_CLIPPING_NORM:
        norm = _LARGEST_CLIPPING_NORM
        factor *= privacy.clipping_norm / norm if config.optimizer.name in _MOVED_BY_NORM else 1.0
    if own is not None:
        longer = own.sizes.budget.steps / advised.sizes.budget.steps
        factor *= min(max(longer, 1 / _LARGEST_CHANGE), _LARGEST_CHANGE)
    return float(f"{config.optimizer.learning_rate * factor:.3g}"), norm


def _overrides(
    config: Config, advised: Row, request: BudgetRequest, *, learning_rate: float, clipping_norm: float
) -> tuple[str, ...]:
    privacy = config.privacy
    changed = {
        "training.batch_size": (config.training.batch_size, advised.sizes.batch_size),
        "training.epochs": (config.training.epochs, advised.sizes.epochs),
        "optimizer.learning_rate": (config.optimizer.learning_rate, learning_rate),
        "privacy.clipping_norm": (privacy and privacy.clipping_norm, clipping_norm),
    }
    found = [f"{key}={new!r}" for key, (old, new) in changed.items() if new != old]
    if privacy is not None and privacy.noise_multiplier is not None:
        # Noise follows from ε here: what the config's own noise spent, where it did not state an ε.
        found.append("privacy.noise_multiplier=")
        if privacy.epsilon is None:
            found.append(f"privacy.epsilon={request.epsilon!r}")
    return tuple(found)


def _seconds(step: StepTime, row: Row) -> float:
    budget = row.sizes.budget
    return step.predict(batch_size=row.sizes.batch_size, train_size=budget.train_size, steps=budget.steps)
