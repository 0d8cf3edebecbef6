"""Advice on a private training before it starts, from public facts alone.

It uses the config, the number N of training records (which the ledger also states), the shape of a sample and the
number of outputs. No sample's file is opened, and labels are used only if the config stratifies the split by labels,
which fixes N within a few records.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dpmed.errors import InputError
from dpmed.planning.advice.grid import Row, grid_around, key_of
from dpmed.planning.advice.step_time import StepTime, measure_step
from dpmed.planning.advice.suggestion import Setting, suggest
from dpmed.planning.advice.verdict import Verdict, judge
from dpmed.planning.plan import Gathered, plan_of
from dpmed.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What published rules suggest for a config, and what can be expected of it.

    Attributes:
        unit: the unit of privacy: what a record is.
        parameters: d, the number of trained parameters.
        advised: the advised batch size and length, with their noise.
        own: those of the config; None if its batch is larger than the training set or its budget cannot be met.
        rows: the grid around both.
        setting: the advised setting, with learning rate and clipping norm.
        overrides: `KEY=VALUE` for the config, with which its plan is the advised row.
        verdict: whether the plan can work.
        step: what a step costs on this machine.
    """

    unit: str
    parameters: int
    advised: Row
    own: Row | None
    rows: tuple[Row, ...]
    setting: Setting
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
                "learning_rate": self.setting.learning_rate,
                "clipping_norm": self.setting.clipping_norm,
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
        gathered: config, data and model.
        progress: shows progress.

    Raises:
        InputError: the config is not private, or no noise meets its requirements.
    """
    config, parameters = gathered.config, gathered.model.parameters
    found = suggest(config, len(gathered.members))
    privacy, own = config.privacy, found.own
    if privacy is None:
        raise ValueError("Expected a private config.")
    rows = grid_around(found.sizes, own, found.request, privacy, parameters=parameters, progress=progress)
    advised, current = rows.get(key_of(found.sizes)), None if own is None else rows.get(key_of(own))
    if advised is None:
        raise InputError(
            "the noise on the counts leaves nothing of the budget for gradients, at the batch size that rules suggest",
            where="privacy.clipping",
            remedy='Set privacy.clipping = "flat", or privacy.clipping.count_noise.',
        )
    progress.say("Measuring a step on made-up samples.")
    step = measure_step(plan_of(replace(gathered, config=found.setting.applied(config))))
    timed = {key: replace(row, seconds=_seconds(step, row)) for key, row in rows.items()}
    return Advice(
        unit=gathered.config.unit,
        parameters=parameters,
        advised=timed[key_of(found.sizes)],
        own=None if own is None else timed.get(key_of(own)),
        rows=tuple(timed.values()),
        setting=found.setting,
        overrides=found.setting.overrides(config),
        verdict=judge(advised, current, found.request, privacy, parameters=parameters),
        step=step,
    )


def _seconds(step: StepTime, row: Row) -> float:
    budget = row.sizes.budget
    return step.predict(batch_size=row.sizes.batch_size, train_size=budget.train_size, steps=budget.steps)
