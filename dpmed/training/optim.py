"""Optimizers and schedules, built from optax."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from dpmed.config.optimizer import (
    AdamOptimizer,
    AdamwOptimizer,
    LionOptimizer,
    NadamOptimizer,
    OptimizerConfig,
    RmspropOptimizer,
    SgdOptimizer,
)
from dpmed.config.schedule import ConstantSchedule, CosineSchedule, PlateauSchedule, ScheduleConfig, StepsSchedule


class PlateauState(NamedTuple):
    """How far a plateau schedule has reduced the learning rate.

    Attributes:
        plateau_factor: multiplies every update.
    """

    plateau_factor: Float[Array, ""]


class UnfreezeState(NamedTuple):
    """How far gradual unfreezing has come.

    Attributes:
        unfreeze_count: number of updates so far.
    """

    unfreeze_count: Int[Array, ""]


def build_optimizer(
    optimizer: OptimizerConfig,
    schedule: ScheduleConfig,
    *,
    steps: int,
    steps_per_epoch: int,
    begins: PyTree[int] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The optimizer with its schedule and weight decay.

    Args:
        optimizer: the optimizer.
        schedule: the schedule.
        steps: updates planned.
        steps_per_epoch: updates per epoch.
        begins: for each trained leaf, the update at which its training begins; None if all are trained from the start.
    """
    rate = build_schedule(schedule, optimizer.learning_rate, steps=steps, steps_per_epoch=steps_per_epoch)
    parts = [_direction(optimizer)]
    if optimizer.weight_decay:
        parts.append(optax.add_decayed_weights(optimizer.weight_decay))
    if isinstance(schedule, PlateauSchedule):
        parts.append(_plateau())
    parts.append(optax.scale_by_learning_rate(rate))
    if begins is not None:
        # Before the moments, so that they stay free of noise from frozen leaves, and again after weight decay.
        parts = [_frozen_until(begins), *parts, _frozen_until(begins)]
    return optax.with_extra_args_support(optax.chain(*parts))


def build_schedule(schedule: ScheduleConfig, rate: float, *, steps: int, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate as a function of the number of updates so far."""
    warmup = min(_warmup(schedule, steps_per_epoch), max(steps - 1, 0))
    main = _after_warmup(schedule, rate, steps=max(steps - warmup, 1), steps_per_epoch=steps_per_epoch)
    if warmup == 0:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), main], [warmup])


def schedule_warnings(schedule: ScheduleConfig, *, steps: int, steps_per_epoch: int) -> tuple[str, ...]:
    """What the user should know about a schedule and a training of so many updates."""
    if not schedule.warmup_epochs or _warmup(schedule, steps_per_epoch) < steps:
        return ()
    return (
        f"schedule.warmup_epochs = {schedule.warmup_epochs:g}, but training has {steps / steps_per_epoch:g} epochs: "
        "the learning rate rises until the last step, and no other part of the schedule begins.",
    )


def _warmup(schedule: ScheduleConfig, steps_per_epoch: int) -> int:
    """Steps of the warmup as the config has them."""
    return round(schedule.warmup_epochs * steps_per_epoch)


def reduce_rate(optimizer_state: PyTree, factor: float, *, smallest: float) -> PyTree:
    """The optimizer's state with the plateau schedule's factor multiplied by `factor`, but at least `smallest`."""
    before = float(optax.tree.get(optimizer_state, "plateau_factor"))
    after = jnp.float32(max(before * factor, smallest))
    return optax.tree.set(optimizer_state, plateau_factor=after)


def rate_factor(optimizer_state: PyTree) -> float:
    """What a plateau schedule has multiplied the learning rate by; 1 for other schedules."""
    factor = optax.tree.get(optimizer_state, "plateau_factor", default=None)
    return 1.0 if factor is None else float(factor)


def _after_warmup(schedule: ScheduleConfig, rate: float, *, steps: int, steps_per_epoch: int) -> optax.Schedule:
    match schedule:
        case ConstantSchedule() | PlateauSchedule():
            return optax.constant_schedule(rate)
        case CosineSchedule():
            return optax.cosine_decay_schedule(rate, steps, alpha=schedule.final)
        case StepsSchedule():
            drops = {round(epoch * steps_per_epoch): schedule.factor for epoch in schedule.epochs}
            return optax.piecewise_constant_schedule(rate, drops)


def _direction(optimizer: OptimizerConfig) -> optax.GradientTransformation:
    match optimizer:
        case SgdOptimizer():
            if optimizer.momentum:
                return optax.trace(optimizer.momentum, nesterov=optimizer.nesterov)
            return optax.identity()
        case NadamOptimizer() | AdamOptimizer() | AdamwOptimizer():
            return optax.scale_by_adam(
                optimizer.beta1, optimizer.beta2, optimizer.eps, nesterov=isinstance(optimizer, NadamOptimizer)
            )
        case RmspropOptimizer():
            scale = optax.scale_by_rms(optimizer.decay, optimizer.eps)
            return optax.chain(scale, optax.trace(optimizer.momentum)) if optimizer.momentum else scale
        case LionOptimizer():
            return optax.scale_by_lion(optimizer.beta1, optimizer.beta2)


def _plateau() -> optax.GradientTransformation:
    def init(parameters: PyTree) -> PlateauState:
        del parameters
        return PlateauState(jnp.ones((), jnp.float32))

    def update(
        updates: PyTree[Array], state: PlateauState, parameters: PyTree | None = None
    ) -> tuple[PyTree[Array], PlateauState]:
        del parameters
        return jax.tree.map(lambda leaf: leaf * state.plateau_factor, updates), state

    return optax.GradientTransformation(init, update)


def _frozen_until(begins: PyTree[int]) -> optax.GradientTransformation:
    def init(parameters: PyTree) -> UnfreezeState:
        del parameters
        return UnfreezeState(jnp.zeros((), jnp.int32))

    def update(
        updates: PyTree[Array], state: UnfreezeState, parameters: PyTree | None = None
    ) -> tuple[PyTree[Array], UnfreezeState]:
        del parameters
        moved = jax.tree.map(
            lambda leaf, begin: jnp.where(state.unfreeze_count >= begin, leaf, jnp.zeros_like(leaf)), updates, begins
        )
        return moved, UnfreezeState(state.unfreeze_count + 1)

    return optax.GradientTransformation(init, update)
