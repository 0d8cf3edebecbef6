"""Optimizers and schedules, by optax."""

import optax

from dpmed.config.optimizer import AdamOptimizer, NadamOptimizer, OptimizerConfig, SgdOptimizer
from dpmed.config.schedule import ConstantSchedule, CosineSchedule, ScheduleConfig, StepsSchedule


def build_optimizer(
    optimizer: OptimizerConfig, schedule: ScheduleConfig, *, steps: int, steps_per_epoch: int
) -> optax.GradientTransformationExtraArgs:
    """The optimizer with its schedule and weight decay.

    Args:
        optimizer: the `[optimizer]` table.
        schedule: the `[schedule]` table.
        steps: updates planned.
        steps_per_epoch: updates that make an epoch.
    """
    rate = build_schedule(schedule, optimizer.learning_rate, steps=steps, steps_per_epoch=steps_per_epoch)
    parts = [_direction(optimizer)]
    if optimizer.weight_decay:
        parts.append(optax.add_decayed_weights(optimizer.weight_decay))
    return optax.with_extra_args_support(optax.chain(*parts, optax.scale_by_learning_rate(rate)))


def build_schedule(schedule: ScheduleConfig, rate: float, *, steps: int, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate as a function of the number of updates so far."""
    match schedule:
        case ConstantSchedule():
            return optax.constant_schedule(rate)
        case CosineSchedule():
            warmup = min(round(schedule.warmup_epochs * steps_per_epoch), max(steps - 1, 0))
            cosine = optax.cosine_decay_schedule(rate, max(steps - warmup, 1), alpha=schedule.final)
            if warmup == 0:
                return cosine
            return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), cosine], [warmup])
        case StepsSchedule():
            drops = {round(epoch * steps_per_epoch): schedule.factor for epoch in schedule.epochs}
            return optax.piecewise_constant_schedule(rate, drops)


def _direction(optimizer: OptimizerConfig) -> optax.GradientTransformation:
    match optimizer:
        case SgdOptimizer():
            if optimizer.momentum:
                return optax.trace(optimizer.momentum, nesterov=optimizer.nesterov)
            return optax.identity()
        case NadamOptimizer() | AdamOptimizer():
            return optax.scale_by_adam(
                optimizer.beta1, optimizer.beta2, optimizer.eps, nesterov=isinstance(optimizer, NadamOptimizer)
            )
