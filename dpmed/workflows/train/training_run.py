"""One training run with its folder: joins a plan to the loop, and writes what the loop produces."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree, UInt32

from dpmed.data.identity import record_keys, seeded_secret
from dpmed.data.loader import Loader
from dpmed.dpsgd.devices import all_devices
from dpmed.dpsgd.microbatch import usable_memory
from dpmed.dpsgd.noise import key_of, seeded_key
from dpmed.dpsgd.sampling import PoissonSampler, Sampler, ShuffledSampler
from dpmed.dpsgd.step import PlainStep, PrivateStep, Step, StepState
from dpmed.errors import InputError, RunError
from dpmed.figures.curves import plot_curves
from dpmed.files import digest_of, write_csv, write_json
from dpmed.metrics.evaluate import evaluate, main_metric
from dpmed.models.weights import save_weights
from dpmed.planning.initial_state import begin_training
from dpmed.planning.microbatch import choose_microbatch, step_memory
from dpmed.planning.plan import Plan
from dpmed.privacy.ledger import Digests, Ledger, describe_release, plain_ledger, private_ledger
from dpmed.progress import Progress
from dpmed.runtime.distributed import ALONE, Processes
from dpmed.training.checkpoint import (
    DrawJournal,
    Position,
    list_checkpoints,
    load_checkpoint,
    read_position,
    save_checkpoint,
)
from dpmed.training.evaluate import Evaluator, Predictions
from dpmed.training.loop import Hooks, Outcome, Parts, RunState, accumulate, train
from dpmed.training.objective import Rest
from dpmed.training.optim import rate_factor, reduce_rate
from dpmed.training.stopping import has_stopped
from dpmed.training.validation_monitor import build_watcher
from dpmed.workflows.train.draws import count_draws
from dpmed.workflows.train.final_test import write_test

METHOD = "bookkeeping"
INTERNAL = "internal.json"
_KEEP_INSIDE = "Exact numbers of private data, which ε does not cover: this file stays within your institution."
# A key of the noise, one of the sampling and one of the augmentation.
_SECRET_BYTES = 32
_SECRETS = 3


class Run:
    """A training run in its folder.

    Args:
        plan: what to train.
        folder: the run folder, with `checkpoints` in it, locked by the caller.
        progress: tells the user.
        config_digest: SHA-256 of the run's config.toml, by which checkpoints know their run.
        should_stop: whether the user asked to stop.
        processes: that train together; the first alone writes.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        progress: Progress,
        *,
        config_digest: str,
        should_stop: Callable[[], bool] = lambda: False,
        processes: Processes = ALONE,
    ) -> None:
        self.plan = plan
        self._processes = processes
        self.folder = folder
        self.progress = progress
        self._digest = config_digest
        self._should_stop = lambda: processes.any(should_stop())
        self._checkpoint = next(iter(list_checkpoints(folder / "checkpoints")), None)
        self.release: tuple[str, ...] = ()
        self._notes: tuple[str, ...] = ()
        begun = begin_training(plan)
        self._objective, self._optimizer, self._initial = begun.objective, begun.optimizer, begun.state
        self._devices = all_devices()
        self._secret = self._draw_secret()
        self._record_keys = self._draw_record_keys()
        self._step = self._build_step()
        self.microbatch = self._choose_microbatch()
        self._require_whole_batches()
        self._main_metric = plan.config.evaluation.main_metric or main_metric(plan.dataset.info.task)
        self._watcher = build_watcher(plan.config, metric=self._main_metric)
        self._evaluator = Evaluator(
            self._objective,
            plan.dataset,
            batch_size=plan.config.evaluation.batch_size,
            devices=self._devices,
            processes=processes,
        )

    def train(self) -> Outcome:
        """Train to the end, from the last checkpoint if there is one."""
        config, plan = self.plan.config, self.plan
        run = self._restore() if self._checkpoint is not None else self._fresh()
        journal = self._journal(run.draws)
        begun = self._processes.first(0 if journal is None else journal.draws)
        run = replace(run, draws=max(run.draws, begun))
        every = config.training.checkpoint_steps or plan.steps_per_epoch
        parts = Parts(
            step=self._step,
            sampler=self._sampler(),
            loader=self._loader(),
            epsilon=self._epsilon if plan.budget is not None else None,
            evaluate=self._validate,
            steps=plan.steps,
            steps_per_epoch=plan.steps_per_epoch,
            evaluate_every=config.evaluation.every_epochs * plan.steps_per_epoch,
            save_every=every,
            ema_decay=config.training.ema_decay,
        )
        if self._processes.is_first:
            write_json(self.folder / INTERNAL, {"keep": _KEEP_INSIDE, "units": plan.units.to_json()})
        self._write_ledger(min(run.draws + every, plan.steps), "running")
        hooks = Hooks(
            before_draw=journal.begin if journal is not None else lambda draws: None,
            save=lambda state: self._save(state, reserve=every),
            watch=self._watch,
            should_stop=self._should_stop,
            after_running_out=self._after_running_out,
            progress=self.progress,
        )
        if run.draws >= plan.steps or has_stopped(run.watched):
            self._save(run, reserve=0)
            return Outcome(run=run, finished=True)
        outcome = train(parts, run, hooks)
        self._write_ledger(outcome.run.draws, "running" if outcome.finished else "stopped")
        return outcome

    def step_memory(self) -> int:
        """Bytes that one microbatch of a step needs on the device, by XLA's own analysis; nothing is trained."""
        return step_memory(self.plan, self._step, self._initial, self.microbatch)

    def time_steps(self, count: int) -> float:
        """Median seconds of `count` steps, loading included, once compiled; nothing is kept. For benchmarks."""
        step, state, sampler = self._step, self._fresh().state, self._sampler()
        loader = self._loader()
        seconds = []
        for number, microbatches in enumerate(loader.stream(sampler.draw(number) for number in range(count + 3))):
            begun = time.perf_counter()
            state, total = accumulate(step, state, microbatches, number)
            state = jax.block_until_ready(step.update(state, total, draw=number))  # type: ignore[no-untyped-call] # jax's
            seconds.append(time.perf_counter() - begun)
        return float(np.median(seconds[3:]))

    def test(self, run: RunState) -> Predictions:
        """What the final weights say of the test split; in all processes."""
        plan = self.plan
        with self.progress.task("testing", total=len(plan.split.test), unit="samples") as task:
            return self._evaluator(*self._weights(run), plan.split.test, advance=task.advance)

    def finish(
        self, run: RunState, result: Predictions
    ) -> tuple[Ledger, dict[str, float], dict[str, tuple[float, float]]]:
        """Score the test and write the scores, the final weights, the ledger, metrics and curves."""
        trainable, rest = self._weights(run)
        plan = self.plan
        scores, intervals = write_test(plan, result, self.folder)
        # On the disk before the model that it covers, and once more when it can be bound to the model's bytes.
        self._write_ledger(run.draws, "finished")
        module = eqx.combine(trainable, rest.frozen, self._objective.static)
        save_weights(self.folder / "model.eqx", (module, rest.state))
        ledger = self._write_ledger(run.draws, "finished", model=digest_of(self.folder / "model.eqx"))
        self.release = tuple(describe_release(ledger))
        test = {"epoch": run.step / plan.steps_per_epoch, "step": run.step, "epsilon": ledger.epsilon}
        rows = (*run.rows, {**test, "split": "test", **scores})
        self._write_rows(rows)
        plot_curves(rows, self.folder, metric=self._main_metric, epsilon_planned=self._planned_epsilon())
        return ledger, scores, intervals

    def _epsilon(self, draws: int) -> float:
        assert self.plan.budget is not None  # noqa: S101 asked for in private runs only
        return self.plan.budget.spent(draws).epsilon

    def _planned_epsilon(self) -> float | None:
        return None if self.plan.budget is None else self.plan.budget.epsilon

    def _fresh(self) -> RunState:
        copied = self._copy(self._initial)
        keeps_average = self.plan.config.training.ema_decay is not None
        ema = self._copy(copied.trainable) if keeps_average else None
        # Always there when it may be needed, so that checkpoints of one run have one shape.
        best = (copied.trainable, copied.rest) if self._watcher.keeps_best else None
        return RunState(state=copied, ema=ema, best=self._copy(best), step=0, draws=0)

    def _loader(self) -> Loader:
        share = (self._processes.number, self._processes.count)
        plan = self.plan
        # Padded to the public bound where there is one, so that shapes do not tell who takes part.
        is_grouped = plan.budget is not None and plan.facts.unit != "image"
        return Loader(
            plan.dataset,
            plan.members,
            microbatch=self.microbatch,
            share=share,
            keys=self._record_keys,
            views=plan.config.data.max_samples_per_unit if is_grouped else None,
        )

    def _draw_secret(self) -> bytes:
        """The entropy of this run in this process, which is never stored."""
        return bytes.fromhex(self._processes.first(os.urandom(_SECRETS * _SECRET_BYTES).hex()))

    def _draw_record_keys(self) -> UInt32[np.ndarray, "record 2"]:
        """What augmentation is made of: in a release run the run's secret, else the seed; always by record identity."""
        plan = self.plan
        is_seeded = plan.budget is None or plan.facts.source == "seeded"
        secret = seeded_secret(plan.config.training.seed) if is_seeded else self._secret[2 * _SECRET_BYTES :]
        return record_keys(plan.dataset, plan.members, secret=secret)

    def _copy(self, tree: PyTree) -> PyTree:
        """The tree in memory of its own, on all devices that take part."""
        return jax.tree.map(jnp.array, tree) if self._devices is None else self._devices.copy(tree)

    def _restore(self) -> RunState:
        assert self._checkpoint is not None  # noqa: S101 the caller looked
        fresh = self._fresh()
        like = (fresh.state, fresh.ema, fresh.best)
        position, tree = load_checkpoint(self._checkpoint, like, config_digest=self._digest)
        if position.method != METHOD:
            raise InputError(
                f"was made with per-sample gradients by {position.method!r}, and this version takes them by {METHOD!r}",
                where=str(self._checkpoint),
                remedy="Go on with the version of dpmed that began the run, or start a new run.",
            )
        state, ema, best = tree if self._devices is None else self._devices.copy(tree)
        self.progress.say(f"Resuming from step {position.step} ({self._checkpoint.name}).")
        return RunState(
            state=state,
            ema=ema,
            best=best,
            step=position.step,
            draws=position.draws,
            seconds=position.seconds,
            records=position.records,
            rows=position.rows,
            losses=position.losses,
            watched=position.watched,
        )

    def _journal(self, saved: int) -> DrawJournal | None:
        # A seeded run repeats the very draws it lost, which reveals nothing new; a release run cannot.
        privacy = self.plan.config.privacy
        if privacy is None or privacy.noise_source == "seeded" or not self._processes.is_first:
            return None
        has_checkpoint = self._checkpoint is not None
        counted = count_draws(
            self.folder, saved=saved if has_checkpoint else None, planned=self.plan.steps, progress=self.progress
        )
        self._notes = counted.notes
        return counted.journal

    def _sampler(self) -> Sampler:
        plan, budget = self.plan, self.plan.budget
        seed = plan.config.training.seed
        if budget is None:
            return ShuffledSampler(plan.train_size, plan.config.training.batch_size, seed)
        key = self._secret[_SECRET_BYTES : 2 * _SECRET_BYTES] if self._processes.count > 1 else None
        return PoissonSampler(plan.train_size, budget.sampling_rate, plan.facts.source, seed, key)

    def _build_step(self) -> Step:
        budget, clipping = self.plan.budget, self.plan.clipping
        if budget is None or clipping is None:
            return PlainStep(self._objective.batch_loss, optimizer=self._optimizer, devices=self._devices)
        is_seeded = self.plan.facts.source == "seeded"
        key = seeded_key(self.plan.config.training.seed) if is_seeded else key_of(self._secret[:_SECRET_BYTES])
        return PrivateStep(
            self._objective.record_loss,
            clipping=clipping,
            noise_multiplier=budget.noise_multiplier,
            expected_batch_size=budget.expected_batch_size,
            most_records=self.plan.train_size,
            optimizer=self._optimizer,
            key=key,
            devices=self._devices,
        )

    def _choose_microbatch(self) -> int:
        if self._checkpoint is not None:
            # What shaped the rounding is the checkpoint's, whatever this machine would choose today.
            return read_position(self._checkpoint, config_digest=self._digest).microbatch
        memory = self._processes.smallest(usable_memory())
        return choose_microbatch(self.plan, self._step, self._initial, memory=memory)

    def _require_whole_batches(self) -> None:
        # Rows that fill up a microbatch are no records, but batch norm would see them.
        has_batch_norm = bool(jax.tree.leaves(self._initial.rest.state))
        if self._processes.count > 1 and has_batch_norm and self.microbatch % jax.device_count():
            raise InputError(
                f"is {self.microbatch}, which the {jax.device_count()} devices do not divide: batch norm needs that",
                where="training.batch_size",
                remedy="Choose a multiple of the devices, or a model with group norm.",
            )

    def _after_running_out(self, loader: Loader) -> Loader:
        """A loader of smaller microbatches, for the rest of the run."""
        if self._processes.count > 1:
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
        self.progress.say(f"Out of memory with {loader.microbatch} records at once: going on with {smaller}.")
        self.microbatch = smaller
        return self._loader()

    def _watch(self, run: RunState, scores: Mapping[str, float]) -> tuple[RunState, bool]:
        verdict = self._watcher.observe(run.watched, scores)
        if verdict.improved and self._watcher.keeps_best:
            current = (run.state.trainable if run.ema is None else run.ema, run.state.rest)
            # Copied: the next step uses up the buffers of its state.
            run = replace(run, best=jax.tree.map(jnp.array, current))
        if verdict.reduce_rate is not None:
            state = run.state
            optimizer = reduce_rate(state.optimizer, verdict.reduce_rate, smallest=self._watcher.smallest_rate)
            self.progress.say(f"Learning rate now {rate_factor(optimizer):.3g} of the first, at step {run.step}.")
            run = replace(run, state=replace(state, optimizer=optimizer))
        return replace(run, watched=verdict.watched), verdict.stop

    def _weights(self, run: RunState) -> tuple[PyTree, Rest]:
        if run.best is not None:
            return run.best
        return (run.state.trainable if run.ema is None else run.ema), run.state.rest

    def _validate(self, state: StepState, ema: PyTree | None) -> dict[str, float]:
        trainable = state.trainable if ema is None else ema
        result = self._evaluator(trainable, state.rest, self.plan.split.validation)
        info = self.plan.dataset.info
        names = self.plan.config.evaluation.metrics
        scores = evaluate(names, result.predictions, result.targets, task=info.task, class_names=info.class_names)
        # The first one's: on them depends what is done next, and another machine may round otherwise.
        scores = self._processes.first({"loss": float(result.losses.mean()), **scores})
        return {name: float(score) for name, score in scores.items()}

    def _save(self, run: RunState, *, reserve: int) -> None:
        # The ledger comes first and covers all draws until the next checkpoint: whatever a crash leaves behind on the
        # disk, the ledger beside it claims no less than was spent.
        self._write_ledger(min(run.draws + reserve, self.plan.steps), "running")
        self._write_rows(run.rows)
        position = Position(
            config_digest=self._digest,
            step=run.step,
            draws=run.draws,
            microbatch=self.microbatch,
            method=METHOD,
            seconds=run.seconds,
            records=run.records,
            rows=run.rows,
            losses=run.losses,
            watched=run.watched,
        )
        if self._processes.is_first:
            save_checkpoint(self.folder / "checkpoints", position, (run.state, run.ema, run.best))

    def _write_rows(self, rows: tuple[Mapping[str, Any], ...]) -> None:
        first = ["epoch", "step", "epsilon", "split", "loss"]
        others = dict.fromkeys(name for row in rows for name in row if name not in first)
        if self._processes.is_first:
            write_csv(self.folder / "metrics.csv", rows, [*first, *others])

    def _write_ledger(self, draws: int, status: str, *, model: str | None = None) -> Ledger:
        plan = self.plan
        digests = Digests(config=self._digest or None, model=model)
        if plan.budget is None:
            ledger = plain_ledger(
                plan.facts,
                train_size=plan.train_size,
                batch_size=plan.config.training.batch_size,
                steps=draws,
                steps_planned=plan.steps,
                status=status,
                digests=digests,
            )
        else:
            facts = replace(plan.facts, notes=(*plan.facts.notes, *self._notes))
            ledger = private_ledger(plan.budget, facts, steps=draws, status=status, digests=digests)
        if self._processes.is_first:
            write_json(self.folder / "privacy.json", ledger.to_json())
        return ledger
