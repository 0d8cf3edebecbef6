"""The initial state of a plan's training, for the run itself and for attacks that reproduce it."""

from dataclasses import dataclass

import jax
import optax

from dpmed.dpsgd.step import StepState
from dpmed.planning.plan import Plan
from dpmed.training.build import build_objective, unfreezing
from dpmed.training.objective import Objective
from dpmed.training.optim import build_optimizer


@dataclass(frozen=True, kw_only=True, eq=False)
class InitialState:
    """A training before its first step.

    Attributes:
        objective: what training minimises.
        optimizer: with the plan's schedule.
        state: the weights of the plan's model, the optimizer's state, and the clipping norm if it varies.
    """

    objective: Objective
    optimizer: optax.GradientTransformationExtraArgs
    state: StepState


def begin_training(plan: Plan) -> InitialState:
    """The initial state of a plan's training.

    Raises:
        InputError: loss, augmentation and data do not go together.
    """
    begins = unfreezing(
        plan.model, epochs_per_stage=plan.config.model.unfreeze_epochs, steps_per_epoch=plan.steps_per_epoch
    )
    objective, trainable, rest = build_objective(
        plan.config, plan.dataset.info, plan.model, begins=begins, class_counts=plan.class_counts
    )
    optimizer = build_optimizer(
        plan.config.optimizer,
        plan.config.schedule,
        steps=plan.steps,
        steps_per_epoch=plan.steps_per_epoch,
        begins=begins,
    )
    state = StepState(
        trainable=trainable,
        rest=rest,
        # In one program: otherwise one is compiled for each shape of weights.
        optimizer=jax.jit(optimizer.init)(trainable),
        clipping_norm=None if plan.clipping is None else plan.clipping.begin(),
    )
    return InitialState(objective=objective, optimizer=optimizer, state=state)
