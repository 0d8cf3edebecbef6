"""What computes in a training: made of a plan and secrets, and knowing neither files nor the command line.

`dpmed train` runs it in a folder; an audit or an attack runs the same on records or with secrets of its own, by
`build_computation` on another plan, or with another step by `build_step` and `dataclasses.replace`.
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree, UInt32

from dpmed.data.identity import record_keys
from dpmed.data.loader import Loader
from dpmed.dpsgd.devices import Devices, all_devices
from dpmed.dpsgd.microbatch import usable_memory
from dpmed.dpsgd.sampling import PoissonSampler, Sampler, ShuffledSampler
from dpmed.dpsgd.step import PlainStep, PrivateLoss, PrivateStep, Step, StepState
from dpmed.errors import InputError, RunError
from dpmed.metrics.evaluate import evaluate
from dpmed.planning.features import on_features
from dpmed.planning.initial_state import begin_training
from dpmed.planning.microbatch import choose_microbatch, public_views, step_memory
from dpmed.planning.plan import Plan
from dpmed.planning.secrets import Secrets
from dpmed.progress import Progress
from dpmed.runtime.distributed import ALONE, Processes
from dpmed.training.evaluate import Evaluator, Predictions
from dpmed.training.loop import Parts, RunState
from dpmed.training.objective import NonTrainable, Objective
from dpmed.training.stopping import has_stopped
from dpmed.training.validation_monitor import ValidationMonitor, build_monitor


@dataclass(frozen=True, kw_only=True, eq=False)
class Computation:
    """The parts of a training; nothing is compiled before it is first used.

    Attributes:
        plan: what is trained.
        objective: what training minimises.
        initial: weights and optimizer before the first step; never used up, since `begin` copies it.
        step: of the training.
        sampler: gives each step's records.
        record_keys: for each record the key of its augmentation and drop-out.
        evaluator: of the objective, on samples of the plan's data set.
        monitor: draws conclusions from validation scores.
        devices: that share the work; None for one.
        processes: that train together.
    """

    plan: Plan
    objective: Objective
    initial: StepState
    step: Step
    sampler: Sampler
    record_keys: UInt32[np.ndarray, "record 2"]
    evaluator: Evaluator
    monitor: ValidationMonitor
    devices: Devices | None
    processes: Processes

    def begin(self, microbatch: int) -> RunState:
        """A run before its first step, in memory of its own: steps use up the state that they are given."""
        state = self.copy(self.initial)
        ema = None if self.plan.config.training.ema_decay is None else self.copy(state.trainable)
        # Always there when it may be needed, so that checkpoints of one run have one shape.
        best = self.copy((state.trainable, state.rest)) if self.monitor.keeps_best else None
        return RunState(state=state, ema=ema, best=best, step=0, draws=0, microbatch=microbatch)

    def copy(self, tree: PyTree) -> PyTree:
        """The tree in memory of its own, on all devices that take part."""
        return _copied(tree) if self.devices is None else self.devices.copy(tree)

    def fitting_microbatch(self) -> int:
        """The largest of the plan's microbatches that fits into every process's memory; compiles to find out."""
        memory = self.processes.smallest(usable_memory())
        return choose_microbatch(self.plan, self.step, self.initial, memory=memory)

    def step_memory(self, microbatch: int) -> int:
        """Bytes that a step with this microbatch needs on a device, by XLA's own analysis; nothing is trained."""
        return step_memory(self.plan, self.step, self.initial, microbatch)

    def loader(self, microbatch: int) -> Loader:
        """The training records in microbatches of this size.

        Raises:
            InputError: batch norm would see the rows that fill up a microbatch, which are no records.
        """
        plan, processes = self.plan, self.processes
        has_batch_norm = bool(jax.tree.leaves(self.initial.rest.state))
        if processes.world_size > 1 and has_batch_norm and microbatch % jax.device_count():
            raise InputError(
                f"is {microbatch}, which is not a multiple of the {jax.device_count()} devices: batch norm needs that",
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

    def smaller_loader(self, loader: Loader) -> Loader:
        """The next smaller of the plan's loaders, for the rest of a run that has run out of memory.

        Raises:
            RunError: there is none, or other processes would not know of it.
        """
        if self.processes.world_size > 1:
            # The others may have had memory enough, and wait for a sum that will not come.
            raise RunError(
                f"out of memory in one process, with {loader.microbatch} records at once in all of them",
                remedy="Start again with a smaller training.microbatch.",
            )
        smaller = next((size for size in self.plan.microbatches if 2 * size <= loader.microbatch), None)
        if smaller is None:
            raise RunError(
                f"out of memory with {loader.microbatch} records at once, and the plan has no smaller microbatch",
                remedy='Set training.microbatch = "auto", or choose a smaller model or smaller images.',
            )
        return self.loader(smaller)

    def parts(self, microbatch: int) -> Parts:
        """What the training loop needs."""
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
        """Whether nothing is left to train, because all draws are spent or early stopping has ended the run."""
        return run.draws >= self.plan.steps or has_stopped(run.watched)

    def validate(self, state: StepState, ema: PyTree | None) -> dict[str, float]:
        """Scores of the validation split, the same in all processes."""
        trainable = state.trainable if ema is None else ema
        result = self.evaluator(trainable, state.rest, self.plan.split.validation)
        info, names = self.plan.dataset.info, self.plan.config.evaluation.metrics
        scores = evaluate(names, result.predictions, result.targets, task=info.task, class_names=info.output_names)
        # The first one's: on them depends what is done next, and another machine may round otherwise.
        scores = self.processes.first({"loss": float(result.losses.mean()), **scores})
        return {name: float(score) for name, score in scores.items()}

    def final_weights(self, run: RunState) -> tuple[PyTree, NonTrainable]:
        """The trained leaves and all others that a run ends with: the best, or the averaged, or the last."""
        if run.best is not None:
            return run.best
        return (run.state.trainable if run.ema is None else run.ema), run.state.rest

    def final_model(self, run: RunState) -> tuple[PyTree, PyTree]:
        """The model with its final weights, and its running statistics: what `model.eqx` holds."""
        trainable, rest = self.final_weights(run)
        return eqx.combine(trainable, rest.frozen, self.objective.static), rest.state

    def test(self, run: RunState, progress: Progress) -> Predictions:
        """What the final weights say of the test split; in all processes."""
        numbers = self.plan.split.test
        with progress.task("testing", total=len(numbers), unit="samples") as task:
            return self.evaluator(*self.final_weights(run), numbers, advance=task.advance)


@jax.jit
def _copied(tree: PyTree) -> PyTree:
    """In one program: a copy of each array by itself compiles one for each shape."""
    return jax.tree.map(jnp.copy, tree)


def build_computation(
    plan: Plan, secrets: Secrets, *, processes: Processes = ALONE, features: Progress | None = None
) -> Computation:
    """The computation of a plan.

    Args:
        plan: what is trained.
        secrets: of this run, and of no other: noise that two runs share can be taken out.
        processes: that train together.
        features: shows how features are computed, where the training may go by them (`dpmed.planning.features`); None
            for a training on images in any case. Several processes train on images.

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
    devices: Devices | None = None,
    record_loss: PrivateLoss | None = None,
) -> Step:
    """The step of a plan, with its σ and clipping.

    Args:
        plan: with or without privacy.
        objective: of the plan.
        optimizer: of the plan.
        secrets: of the run.
        devices: that share the records; None for the default device alone.
        record_loss: what a private step takes each record's gradient of, in place of the objective's own loss; an
            audit adds its canaries here. It is clipped like any other.
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
    )


def build_sampler(plan: Plan, secrets: Secrets) -> Sampler:
    """The sampler of a plan: Poisson with privacy, reshuffled every epoch without."""
    seed = plan.config.training.seed
    if plan.budget is None:
        return ShuffledSampler(plan.train_size, plan.config.training.batch_size, seed)
    return PoissonSampler(plan.train_size, plan.budget.sampling_rate, plan.facts.source, seed, secrets.sampling)
