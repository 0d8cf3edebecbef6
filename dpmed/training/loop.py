"""The training loop: draw, load, accumulate, update; at intervals evaluate, save, and report progress.

The loop does not know whether it is private: the step, the sampler and the function for ε are passed in. But it ensures
the order that makes a crash harmless: a draw is on record before it is made, and the ledger is on disk before anything
that it covers.

A GPU never waits for the loop: a step's sums are read while the next step is running. A single CPU computes each
microbatch where it is called; its cores are busy in any case.
"""

import operator
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from dpmed.data.loader import Loader, Records
from dpmed.dpsgd.microbatch import is_out_of_memory
from dpmed.dpsgd.sampling import Sampler
from dpmed.dpsgd.step import Accumulated, Step, StepState
from dpmed.errors import RunError
from dpmed.progress import Progress, Task
from dpmed.rounding import rounded_up
from dpmed.runtime.jit import wait_for
from dpmed.runtime.malloc import limit_kept_memory
from dpmed.training.objective import device_records

# On a GPU, one microbatch is computed while the next one waits; more would only occupy memory.
_IN_FLIGHT = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """The constant parts of a run.

    Attributes:
        step: the step, private or not.
        sampler: draws each step's records.
        loader: provides their microbatches.
        epsilon: ε after a given number of draws; None without privacy.
        evaluate: computes the scores of a run's weights on the validation split.
        steps: draws planned.
        steps_per_epoch: steps per epoch.
        evaluate_every: steps between evaluations.
        save_every: steps between checkpoints.
        ema_decay: decay of the averaged weights, None for none.
    """

    step: Step
    sampler: Sampler
    loader: Loader
    epsilon: Callable[[int], float] | None
    evaluate: Callable[["RunState"], dict[str, float]]
    steps: int
    steps_per_epoch: int
    evaluate_every: int
    save_every: int
    ema_decay: float | None


class Counts(NamedTuple):
    """Sums over some steps, see `Accumulated`; not private."""

    loss: float = 0.0
    records: int = 0
    rejected: int = 0
    clipped: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class RunState:
    """The changing state of a run.

    Attributes:
        state: weights and optimizer.
        ema: averaged weights; None if not kept.
        best: weights with the best validation score so far, if early stopping keeps them.
        watched: what early stopping and plateau schedules remember, as plain numbers.
        step: updates done.
        draws: draws begun, including repeated ones.
        microbatch: records on the device at once; reduced if memory runs out.
        seconds: time spent before this process began.
        records: records processed.
        rows: rows of metrics.csv.
        counts: sums since the last evaluation.

    `records`, `counts` and `seconds` include only steps whose counts have been read; whenever a run is saved, evaluated
    or returned, all have been.
    """

    state: StepState
    ema: PyTree | None
    best: PyTree | None
    step: int
    draws: int
    microbatch: int
    watched: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    records: int = 0
    rows: tuple[Mapping[str, Any], ...] = ()
    counts: Counts = field(default_factory=Counts)

    @property
    def weights(self) -> PyTree:
        """The trained leaves that are evaluated: the averaged ones, if averages are kept."""
        return self.state.trainable if self.ema is None else self.ema


@dataclass(frozen=True, kw_only=True, eq=False)
class Hooks:
    """How the loop communicates with the disk and the user.

    Attributes:
        before_draw: records the number of draws begun.
        save: writes ledger, metrics and checkpoint.
        after_evaluation: receives the scores and acts on them; returns the run after that, and whether to stop.
        should_stop: whether the user asked to stop after this step.
        after_running_out: returns a loader with smaller microbatches than the one with which the device ran out of
            memory.
        progress: shows the progress of the run.
    """

    before_draw: Callable[[int], None]
    save: Callable[[RunState], None]
    after_evaluation: Callable[[RunState, Mapping[str, float]], tuple[RunState, bool]]
    should_stop: Callable[[], bool]
    after_running_out: Callable[[Loader], Loader]
    progress: Progress


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """How a run ended.

    Attributes:
        run: its last state, which has been saved.
        finished: false if the user stopped it.
    """

    run: RunState
    finished: bool


def train(parts: Parts, run: RunState, hooks: Hooks) -> Outcome:
    """Train until the planned draws are used up, early stopping ends the run, or the user stops it.

    A release run that repeated steps after a crash has fewer draws left for updates than planned: it counts draws, not
    updates, so that ε never exceeds the planned value.

    Args:
        parts: the constant parts of the run.
        run: its initial state: fresh, or from a checkpoint.
        hooks: how it communicates with disk and user.

    Returns:
        The last state and whether the run is finished.
    """
    begun = time.monotonic() - run.seconds
    average = jax.jit(_average, donate_argnums=0)
    with (
        hooks.progress.task("training", total=parts.steps, unit="steps", done=run.draws) as task,
        closing(_Batches(parts, run, hooks)) as batches,
    ):
        unread = _Unread(task, parts, begun=begun)
        while run.draws < parts.steps:
            hooks.before_draw(run.draws + 1)
            parts.step.prepare(run.state, draw=run.draws)
            state, total = batches.accumulate(run.state, run.step)
            state = parts.step.update(state, total, draw=run.draws)
            limit_kept_memory()
            ema = None if run.ema is None else average(run.ema, state.trainable, jnp.float32(parts.ema_decay))
            unread.add(total)
            del total
            run = replace(
                run, state=state, ema=ema, step=run.step + 1, draws=run.draws + 1, microbatch=batches.microbatch
            )
            run = unread.read(run, leaving=1)
            done, stop = run.draws >= parts.steps, False
            if run.step % parts.evaluate_every == 0 or done:
                run, stop = _evaluate(parts, unread.read(run), hooks)
            stopped = hooks.should_stop()
            if run.step % parts.save_every == 0 or done or stop or stopped:
                run = unread.read(run)
                hooks.save(run)
            if stop or done:
                return Outcome(run=run, finished=True)
            if stopped:
                return Outcome(run=run, finished=False)
    return Outcome(run=run, finished=True)


class _Batches:
    """The sums over each step's batch, in microbatches that become smaller if the device runs out of memory."""

    def __init__(self, parts: Parts, run: RunState, hooks: Hooks) -> None:
        self._parts = parts
        self._hooks = hooks
        self._loader = parts.loader
        self._end = run.step + parts.steps - run.draws
        self._drawn: dict[int, Int[np.ndarray, " record"]] = {}
        # The size of microbatch with which a step has succeeded; none yet.
        self._proven = 0
        self._stream = self._open(run.step)

    @property
    def microbatch(self) -> int:
        """Records on the device at once, at present."""
        return self._loader.microbatch

    def accumulate(self, state: StepState, number: int) -> tuple[StepState, Accumulated]:
        """The sums of step `number`, whose computation may not have finished when this returns."""
        while True:
            try:
                self._try_all_shapes(state, number)
                summed = accumulate(self._parts.step, state, next(self._stream), number)
                if self._proven != self.microbatch and len(self._drawn[number]):
                    # Here rather than in the update, which uses up the state that another attempt needs. Only once,
                    # since all later steps have shapes that have been tried.
                    wait_for(summed)
                    self._proven = self.microbatch
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                with _lost_when_out_of_memory():
                    wait_for(state)
            else:
                del self._drawn[number]
                return summed
            self.close()
            before, self._loader = self._loader, self._hooks.after_running_out(self._loader)
            self._hooks.progress.say(
                f"Out of memory with {before.microbatch} records at once: continuing with {self._loader.microbatch}."
            )
            self._stream = self._open(number)

    def close(self) -> None:
        """End the loader's threads."""
        self._stream.close()

    def _try_all_shapes(self, state: StepState, number: int) -> None:
        """If microbatches have several shapes: compute one of each, without records, before the first step.

        Otherwise memory might run out in the middle of a run, only because a record with many views was drawn. Smaller
        microbatches have another margin for rounding, so this record would change the contributions of all others.
        """
        if len(self._loader.views) > 1 and self._proven != self.microbatch:
            wait_for(accumulate(self._parts.step, state, self._loader.padding(), number))

    def _open(self, first: int) -> Generator[Iterator[Records]]:
        return self._loader.stream(self._numbers(first))

    def _numbers(self, first: int) -> Iterator[Int[np.ndarray, " record"]]:
        # The sampler is indexed by update, not by draw: when a seeded run is resumed, it draws the same batch again.
        for number in range(first, self._end):
            # Kept until it is used: another attempt takes the same batch, never a new draw.
            if number not in self._drawn:
                self._drawn[number] = self._parts.sampler.draw(number)
            yield self._drawn[number]


def accumulate(step: Step, state: StepState, microbatches: Iterator[Any], number: int) -> tuple[StepState, Accumulated]:
    """The sums over all microbatches of step `number`; the computation of the last may not have finished."""
    total = step.begin(state)
    under_way: deque[Array] = deque()
    for records in microbatches:
        if len(under_way) == _IN_FLIGHT:
            # Otherwise, with a loader faster than the device, more and more microbatches would wait and occupy memory.
            wait_for(under_way.popleft())
        batch = device_records(records, step=number)
        state, total = step.accumulate(state, total, batch, records.mask)
        under_way.append(total.records)
    return state, total


class _Unread:
    """The counts of steps, on their way from the device; the steps' gradients are released."""

    def __init__(self, task: Task, parts: Parts, *, begun: float) -> None:
        self._task = task
        self._parts = parts
        self._begun = begun
        self._steps: deque[tuple[Array, Array, Array, Array]] = deque()

    def add(self, total: Accumulated) -> None:
        """Add a step whose sums are still being computed."""
        counts = total.loss, total.records, total.rejected, total.clipped
        for array in counts:
            array.copy_to_host_async()
        self._steps.append(counts)

    def read(self, run: RunState, *, leaving: int = 0) -> RunState:
        """Wait for the counts of all steps except the last few and add them to the run; shows each step.

        Raises:
            RunError: the device ran out of memory in a step whose weights are lost.
        """
        while len(self._steps) > leaving:
            with _lost_when_out_of_memory():
                step = Counts(*(array.item() for array in self._steps.popleft()))
            run = replace(
                run,
                seconds=time.monotonic() - self._begun,
                records=run.records + step.records,
                counts=jax.tree.map(operator.add, run.counts, step),
            )
            self._task.advance(note=_describe(self._parts, run, step))
        return run


@contextmanager
def _lost_when_out_of_memory() -> Iterator[None]:
    """For values computed from weights that an update has used up."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        remedy = "Resume the run: it continues from its last checkpoint, with fewer records at once if necessary."
        raise RunError("out of memory in a step whose weights have been updated since", remedy=remedy) from error


def _average(ema: PyTree[Array], trainable: PyTree[Array], decay: Array) -> PyTree[Array]:
    return jax.tree.map(lambda old, new: decay * old + (jnp.float32(1.0) - decay) * new, ema, trainable)


def _evaluate(parts: Parts, run: RunState, hooks: Hooks) -> tuple[RunState, bool]:
    loss, records, rejected, clipped = run.counts
    common = {
        "epoch": run.step / parts.steps_per_epoch,
        "step": run.step,
        "epsilon": None if parts.epsilon is None else parts.epsilon(run.draws),
    }
    training = {
        **common,
        "split": "train",
        "loss": loss / records if records else None,
        "records": records,
        "rejected": rejected,
        "clipped": clipped,
        **({} if run.state.clipping_norm is None else {"clipping_norm": float(run.state.clipping_norm)}),
    }
    scores = parts.evaluate(run)
    run = replace(run, rows=(*run.rows, training, {**common, "split": "validation", **scores}), counts=Counts())
    if rejected:
        hooks.progress.say(f"{rejected} gradients up to step {run.step} were not finite and counted as zero.")
    return hooks.after_evaluation(run, scores)


def _describe(parts: Parts, run: RunState, step: Counts) -> str:
    notes = [f"loss {step.loss / step.records:.3f}"] if step.records else ["empty batch"]
    # ε takes a moment to compute, too long for each step.
    if parts.epsilon is not None and run.rows:
        notes.append(f"ε {rounded_up(run.rows[-1]['epsilon'], 3)} at last evaluation")
    return ", ".join([*notes, f"{run.records / max(run.seconds, 1e-9):.0f} samples/s"])
