"""The computing parts of a training, built from a plan and secrets; they know neither files nor the command line.

`dpmed train` runs them in a folder. An audit or an attack runs the same parts on its own records or with its own
secrets, by `build_computation` on another plan, or with another step, by `build_step` and `dataclasses.replace`.
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import PyTree, UInt32

from dpmed.data.identity import record_keys
from dpmed.data.loader import Loader
from dpmed.dpsgd.devices import ONE_DEVICE, Devices, all_devices
from dpmed.dpsgd.microbatch import is_out_of_memory, usable_memory
from dpmed.dpsgd.places import place_effect, without_zeros
from dpmed.dpsgd.sampling import PoissonSampler, Sampler, ShuffledSampler
from dpmed.dpsgd.step import PlainStep, PrivateLoss, PrivateStep, Step, StepState
from dpmed.errors import InputError, RunError
from dpmed.metrics.evaluate import evaluate
from dpmed.planning.features import on_features
from dpmed.planning.initial_state import begin_training
from dpmed.planning.microbatch import choose_microbatch, public_microbatches, public_views, step_memory
from dpmed.planning.plan import Plan
from dpmed.planning.secrets import Secrets
from dpmed.progress import Progress
from dpmed.runtime.distributed import ALONE, Processes
from dpmed.training.evaluate import Evaluator, Predictions
from dpmed.training.loop import Parts, RunState
from dpmed.training.objective import NonTrainable, Objective, in_all_shapes
from dpmed.training.stopping import has_stopped
from dpmed.training.validation_monitor import ValidationMonitor, build_monitor

# What places in microbatches may move in a step's sum, as a share of the clipping norm.
_MOST_MOVED = 1e-4


@dataclass(frozen=True, kw_only=True, eq=False)
class Computation:
    """The parts of a training; nothing is compiled before its first use.

    Attributes:
        plan: what is trained.
        objective: what training minimises.
        initial: weights and optimizer before the first step; never used up, since `begin` copies them.
        step: the step of the training.
        sampler: draws each step's records.
        record_keys: for each record, the key of its augmentation and dropout.
        evaluator: evaluates the objective on samples of the plan's data set.
        monitor: draws conclusions from validation scores.
        devices: devices that share the work.
        processes: processes that train together.
    """

    plan: Plan
    objective: Objective
    initial: StepState
    step: Step
    sampler: Sampler
    record_keys: UInt32[np.ndarray, "record 2"]
    evaluator: Evaluator
    monitor: ValidationMonitor
    devices: Devices
    processes: Processes

    def begin(self, microbatch: int) -> RunState:
        """A run before its first step, in its own memory, since steps use up the state that they are given."""
        copy = self.devices.copy
        state = copy(self.initial)
        ema = None if self.plan.config.training.ema_decay is None else copy(state.trainable)
        # Always present if it may be needed, so that all checkpoints of a run have the same structure.
        best = copy((state.trainable, state.rest)) if self.monitor.keeps_best else None
        return RunState(state=state, ema=ema, best=best, step=0, draws=0, microbatch=microbatch)

    def fitting_microbatch(self) -> int:
        """The largest of the plan's microbatches that fits into every process's memory; compiles programs."""
        memory = self.processes.smallest(usable_memory())
        return choose_microbatch(self.plan, self.step, self.initial, memory=memory)

    def step_memory(self, microbatch: int) -> int:
        """Bytes that a step with this microbatch needs on a device, according to XLA; nothing is trained."""
        return step_memory(self.plan, self.step, self.initial, microbatch)

    def loader(self, microbatch: int) -> Loader:
        """The training records in microbatches of this size.

        Raises:
            InputError: batch norm would see the rows that pad a microbatch, which are not records.
        """
        plan, processes = self.plan, self.processes
        has_batch_norm = bool(jax.tree.leaves(self.initial.rest.state))
        if processes.world_size > 1 and has_batch_norm and microbatch % jax.device_count():
            raise InputError(
                f"is {microbatch}, not a multiple of the {jax.device_count()} devices, as batch norm requires",
                where="training.batch_size",
                remedy="Choose a multiple of the number of devices, or a model with group norm.",
            )
        return Loader(
            plan.dataset,
            plan.members,
            microbatch=microbatch,
            share=(processes.index, processes.world_size),
            keys=self.record_keys,
            views=public_views(plan),
        )

    def smaller_microbatch(self, than: int) -> int:
        """The plan's next smaller microbatch, for the rest of a run that has run out of memory.

        Raises:
            RunError: there is none, or other processes would not know about it.
        """
        if self.processes.world_size > 1:
            # The others may have had enough memory, and would wait for a sum that never arrives.
            raise RunError(
                f"out of memory in one process, with {than} records at once in all of them",
                remedy="Start again with a smaller training.microbatch.",
            )
        smaller = self.plan.smaller_microbatch(than)
        if smaller is None:
            raise RunError(
                f"out of memory with {than} records at once, and the plan has no smaller microbatch",
                remedy='Set training.microbatch = "auto", or choose a smaller model or smaller images.',
            )
        return smaller

    def parts(self, microbatch: int) -> Parts:
        """The constant parts for the training loop."""
        plan, config = self.plan, self.plan.config
        budget = plan.budget
        return Parts(
            step=self.step,
            sampler=self.sampler,
            loader=self.loader(microbatch),
            epsilon=None if budget is None else lambda draws: budget.spent(draws).epsilon,
            evaluate=self.validate,
            steps=plan.steps,
            steps_per_epoch=plan.steps_per_epoch,
            evaluate_every=config.evaluation.every_epochs * plan.steps_per_epoch,
            save_every=plan.steps_per_checkpoint,
            ema_decay=config.training.ema_decay,
        )

    def is_over(self, run: RunState) -> bool:
        """Whether training is over, because all draws are used up or early stopping has ended the run."""
        return run.draws >= self.plan.steps or has_stopped(run.watched)

    def validate(self, run: RunState) -> dict[str, float]:
        """Scores on the validation split, the same in all processes."""
        result = self.evaluator(run.weights, run.state.rest, self.plan.split.validation)
        info, names = self.plan.dataset.info, self.plan.config.evaluation.metrics
        scores = evaluate(names, result.predictions, result.targets, task=info.task, class_names=info.output_names)
        # Those of the first process: what happens next depends on them, and other machines may round differently.
        scores = self.processes.first({"loss": float(result.losses.mean()), **scores})
        return {name: float(score) for name, score in scores.items()}

    def final_weights(self, run: RunState) -> tuple[PyTree, NonTrainable]:
        """The trained leaves (the best, the averaged or the last) and all others at the end of a run."""
        return (run.weights, run.state.rest) if run.best is None else run.best

    def final_model(self, run: RunState) -> tuple[PyTree, PyTree]:
        """The model with its final weights, and its running statistics: the content of `model.eqx`."""
        trainable, rest = self.final_weights(run)
        return eqx.combine(trainable, rest.frozen, self.objective.static), rest.state

    def test(self, run: RunState, progress: Progress) -> Predictions:
        """Predictions of the final weights for the test split; in all processes."""
        numbers = self.plan.split.test
        with progress.task("testing", total=len(numbers), unit="samples") as task:
            return self.evaluator(*self.final_weights(run), numbers, advance=task.advance)


def effect_of_places(computation: Computation, microbatch: int) -> float:
    """By how much a microbatch's sum depends on its records' places; see `dpmed.dpsgd.places.place_effect`."""
    return _measured_places(computation, microbatch)[0]


def _measured_places(computation: Computation, microbatch: int) -> tuple[float, int]:
    """The effect of places, and the microbatch for which memory was enough to measure it."""
    step, plan, initial = computation.step, computation.plan, computation.initial
    if not isinstance(step, PrivateStep):
        return 0.0, microbatch
    state = replace(initial, trainable=without_zeros(initial.trainable), optimizer=None)
    state = computation.devices.placed(state)
    try:
        found = max(place_effect(step, state, records) for records in public_microbatches(plan, microbatch))
        return found, microbatch
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        # Training will meet the same, and continue with the next smaller microbatch or say why it cannot.
        smaller = plan.smaller_microbatch(microbatch)
        alone = computation.processes.world_size == 1
        return _measured_places(computation, smaller) if alone and smaller is not None else (0.0, microbatch)


def settle_places(computation: Computation, microbatch: int) -> tuple[int, float]:
    """The microbatch to train with, and its `effect_of_places`.

    That is the given one, unless the plan may choose a smaller one and the sum of an expected batch could be moved by
    more than a ten-thousandth of the clipping norm: then each record is computed without others beside it.
    """
    plan, smallest = computation.plan, computation.plan.microbatches[-1]
    effect, measured = _measured_places(computation, microbatch)
    matters = effect * math.ceil(plan.config.training.batch_size / measured) > _MOST_MOVED
    if not computation.processes.any(matters and smallest < microbatch):
        return microbatch, effect
    return smallest, effect_of_places(computation, smallest)


def chosen_microbatch(computation: Computation) -> int:
    """The microbatch with which training begins on this machine: the largest that fits, unless places matter."""
    return settle_places(computation, computation.fitting_microbatch())[0]


def build_computation(
    plan: Plan, secrets: Secrets, *, processes: Processes = ALONE, features: Progress | None = None
) -> Computation:
    """The computation of a plan.

    Args:
        plan: what is trained.
        secrets: used for this run and no other: noise that two runs share can be subtracted.
        processes: processes that train together.
        features: shows the computation of features if the training may use them (`dpmed.planning.features`); None
            always trains on images, as several processes do.

    Raises:
        InputError: loss, augmentation and data do not go together.
    """
    begun, devices = begin_training(plan), all_devices()
    keys = record_keys(plan.dataset, plan.members, secret=secrets.augmentation)
    if features is not None and processes.world_size == 1:
        plan, begun = on_features(plan, begun, features)
    return Computation(
        plan=plan,
        objective=begun.objective,
        initial=begun.state,
        step=build_step(plan, begun.objective, begun.optimizer, secrets=secrets, devices=devices),
        sampler=build_sampler(plan, secrets),
        record_keys=keys,
        evaluator=Evaluator(
            begun.objective,
            plan.dataset,
            batch_size=plan.config.evaluation.batch_size,
            usual=len(plan.split.validation),
            devices=devices,
            processes=processes,
        ),
        monitor=build_monitor(plan.config, metric=plan.main_metric),
        devices=devices,
        processes=processes,
    )


def build_step(
    plan: Plan,
    objective: Objective,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    secrets: Secrets,
    devices: Devices = ONE_DEVICE,
    record_loss: PrivateLoss | None = None,
) -> Step:
    """The step of a plan, with its σ and clipping.

    Args:
        plan: with or without privacy.
        objective: the plan's objective.
        optimizer: the plan's optimizer.
        secrets: secrets of the run.
        devices: devices that share the records.
        record_loss: the loss whose per-record gradients a private step computes, instead of the objective's own; an
            audit adds its canaries here. Its gradients are clipped like any others.
    """
    budget, clipping = plan.budget, plan.clipping
    if budget is None or clipping is None:
        return PlainStep(objective.batch_loss, optimizer=optimizer, devices=devices)
    return PrivateStep(
        objective.record_loss if record_loss is None else record_loss,
        clipping=clipping,
        noise_multiplier=budget.noise_multiplier,
        expected_batch_size=budget.expected_batch_size,
        most_records=budget.train_size,
        optimizer=optimizer,
        key=secrets.noise,
        devices=devices,
        shapes=partial(in_all_shapes, views=public_views(plan)),
    )


def build_sampler(plan: Plan, secrets: Secrets) -> Sampler:
    """The sampler of a plan: Poisson with privacy, reshuffled every epoch without."""
    seed = plan.config.training.seed
    if plan.budget is None:
        return ShuffledSampler(plan.train_size, plan.config.training.batch_size, seed)
    return PoissonSampler(plan.train_size, plan.budget.sampling_rate, plan.facts.source, seed, secrets.sampling)
