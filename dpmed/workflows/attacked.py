"""What all attacks on a training share: its levels of noise, its weights, and the loss that its clients take."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import equinox as eqx
from jaxtyping import PyTree

from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.files import write_csv
from dpmed.manifest import Level, level_name
from dpmed.models.weights import load_weights
from dpmed.privacy.accountant import AccountantName, SampledGaussian, calibrate_noise, epsilon
from dpmed.progress import Progress
from dpmed.training.build import build_objective
from dpmed.training.objective import Objective, Rest
from dpmed.workflows.plan import Plan, make_plan

NOISE = "noise_multipliers.csv"
NOISE_COLUMNS = ("level", "epsilon", "epsilon_pld", "epsilon_rdp", "noise_multiplier")
_WEIGHTS_FILE = "model.eqx"
_SMALLEST_EXPONENT, _LARGEST_EXPONENT = -3, 20
_MOST_LEVELS = 100


def parse_levels(text: str | None, *, non_private: bool) -> tuple[float | None, ...]:
    """Levels from `FIRST:LAST:STEP`, a single number or a comma list: powers of ten, and None for no privacy.

    LAST is included when it is hit.

    Args:
        text: exponents; None for none.
        non_private: whether the level without privacy follows.

    Raises:
        InputError: the text is malformed, or an exponent stands there twice or is out of range.
    """
    exponents = [] if text is None else _exponents(text.strip())
    if len(set(exponents)) < len(exponents):
        raise InputError(f"{text!r} holds an exponent twice", where="--eps-exp")
    if not all(_SMALLEST_EXPONENT <= exponent <= _LARGEST_EXPONENT for exponent in exponents):
        problem = f"{text!r} holds an exponent that is not from {_SMALLEST_EXPONENT} to {_LARGEST_EXPONENT}"
        raise InputError(problem, where="--eps-exp")
    return (*(10.0**exponent for exponent in exponents), *([None] if non_private else []))


def _exponents(text: str) -> list[int]:
    problem = InputError(
        f"{text!r} is not FIRST:LAST:STEP, a whole number or a comma list of them",
        where="--eps-exp",
        remedy="6:18:2 means ε = 10^6, 10^8, … 10^18.",
    )
    try:
        if ":" not in text:
            return [int(part) for part in text.split(",")]
        first, last, *steps = (int(part) for part in text.split(":"))
    except ValueError as error:
        raise problem from error
    step = steps[0] if steps else 1
    if len(steps) > 1 or step <= 0 or last < first or (last - first) // step >= _MOST_LEVELS:
        raise problem
    return list(range(first, last + 1, step))


def make_level(
    plan: Plan,
    value: float | None,
    *,
    accountant: AccountantName | None,
    steps: Literal["one", "all"],
    counts: tuple[int, ...],
) -> Level:
    """A level of the plan's own mechanism.

    Args:
        plan: gives sampling rate, δ and steps.
        value: ε; None for no privacy.
        accountant: which ε is meant; None for the config's.
        steps: whether σ is that of the whole training or of a single step.
        counts: images recovered from each batch.
    """
    name, budget = level_name(value), plan.budget
    if value is None or budget is None:
        return Level(
            name=name,
            folder=name,
            epsilon=None,
            epsilon_pld=None,
            epsilon_rdp=None,
            noise_multiplier=0.0,
            counts=counts,
        )
    number = 1 if steps == "one" else plan.steps
    noise = calibrate_noise(
        epsilon=value,
        delta=budget.delta,
        sampling_rate=budget.sampling_rate,
        steps=number,
        accountant=accountant or budget.accountant,
    )
    mechanism = SampledGaussian(noise_multiplier=noise, sampling_rate=budget.sampling_rate, steps=number)
    return Level(
        name=name,
        folder=name,
        epsilon=value,
        epsilon_pld=epsilon(mechanism, budget.delta),
        epsilon_rdp=epsilon(mechanism, budget.delta, accountant="rdp"),
        noise_multiplier=noise,
        counts=counts,
    )


def write_noise(folder: Path, levels: Sequence[Level]) -> None:
    """Write `noise_multipliers.csv`."""
    rows = [{"level": level.name, **{name: getattr(level, name) for name in NOISE_COLUMNS[1:]}} for level in levels]
    write_csv(folder / NOISE, rows, NOISE_COLUMNS)


def attacked_plan(config: Config, progress: Progress, *, weights: Path | None = None) -> Plan:
    """The plan of the training that is attacked.

    Args:
        config: of the training.
        progress: hears of the reading of data.
        weights: a run folder, or its model.eqx, whose weights are attacked; None for fresh ones.

    Raises:
        InputError: the config clips otherwise than these attacks know, or `make_plan` or `with_weights` refuses.
    """
    if config.privacy is not None and config.privacy.clipping != "flat":
        raise InputError(
            f'"{config.privacy.clipping}", but attacks are made for updates of flat clipping only',
            where="[privacy] clipping",
            remedy='Attack the config with --set privacy.clipping="flat", without the keys of the other kind.',
        )
    if config.training.precision != "float32":
        # Rounding would blunt the attack, and what it measures must not look smaller than it is.
        config = config.model_copy(update={"training": config.training.model_copy(update={"precision": "float32"})})
        progress.say("Attacks compute in float32, whatever the training does: they recover no less that way.")
    return with_weights(make_plan(config, progress), weights)


def with_weights(plan: Plan, path: Path | None) -> Plan:
    """The plan with the weights of a run folder (or its model.eqx) in the place of fresh ones.

    Raises:
        InputError: they are missing, damaged or of another model.
    """
    if path is None:
        return plan
    arrays, static = eqx.partition((plan.model.module, plan.model.state), eqx.is_array)
    loaded = load_weights(path / _WEIGHTS_FILE if path.is_dir() else path, arrays)
    module, state = eqx.combine(loaded, static)
    return replace(plan, model=replace(plan.model, module=module, state=state))


def attacked_objective(plan: Plan) -> tuple[Objective, PyTree, Rest]:
    """The objective of the plan's training, its trained leaves and all others."""
    return build_objective(plan.config, plan.dataset.info, plan.model, class_counts=plan.class_counts)
