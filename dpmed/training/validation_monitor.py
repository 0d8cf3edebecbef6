"""Consequences of validation scores: stopping, keeping the best weights, reducing the learning rate.

Each of these uses private samples and is listed in the ledger.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp

from dpmed.config.schedule import PlateauSchedule
from dpmed.config.schema import Config
from dpmed.progress import Progress
from dpmed.training.loop import RunState
from dpmed.training.optim import rate_factor, reduce_rate
from dpmed.training.stopping import EarlyStopping

# The plateau schedule's values are stored with those of early stopping, under names with this prefix.
_PLATEAU = "plateau_"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The consequences of an evaluation.

    Attributes:
        watched: what to remember, as plain numbers.
        improved: whether the score is the best so far by early stopping's measure.
        stop: whether patience has run out.
        reduce_rate: factor for the learning rate; None for no change.
    """

    watched: Mapping[str, float]
    improved: bool
    stop: bool
    reduce_rate: float | None


@dataclass(frozen=True, kw_only=True)
class ValidationMonitor:
    """Monitors one score of every evaluation.

    Attributes:
        metric: the score's name.
        stopping: early stopping; None without it.
        plateau: detects a stalled score; None for all schedules but the plateau schedule.
        factor: factor of a reduction.
        smallest_rate: share of the initial learning rate below which reductions do not go.
    """

    metric: str
    stopping: EarlyStopping | None
    plateau: EarlyStopping | None
    factor: float
    smallest_rate: float

    @property
    def keeps_best(self) -> bool:
        """Whether the best weights are kept."""
        return self.stopping is not None

    def observe(self, watched: Mapping[str, float], scores: Mapping[str, float]) -> Finding:
        """Judge an evaluation; if the score is missing (undefined for so few samples), nothing changes."""
        score = scores.get(self.metric)
        if score is None:
            return Finding(watched=watched, improved=False, stop=False, reduce_rate=None)
        kept = {name: value for name, value in watched.items() if name.startswith(_PLATEAU)}
        own = {name: value for name, value in watched.items() if not name.startswith(_PLATEAU)}
        improved = stop = False
        if self.stopping is not None:
            verdict = self.stopping.observe(own, score)
            own, improved, stop = dict(verdict.watched), verdict.improved, verdict.stop
        reduce_rate = None
        if self.plateau is not None:
            before = {name.removeprefix(_PLATEAU): value for name, value in kept.items()}
            verdict = self.plateau.observe(before, score)
            after = dict(verdict.watched)
            if verdict.stop:
                # Patience starts again after each reduction.
                after, reduce_rate = {"best": after["best"], "waited": 0.0}, self.factor
            kept = {f"{_PLATEAU}{name}": value for name, value in after.items()}
        return Finding(watched={**own, **kept}, improved=improved, stop=stop, reduce_rate=reduce_rate)


def build_monitor(config: Config, *, metric: str) -> ValidationMonitor:
    """The monitor that early stopping and the schedule require."""
    asked, schedule = config.training.early_stopping, config.schedule
    stopping = None
    if asked is not None:
        stopping = EarlyStopping(metric=metric, patience=asked.patience, min_delta=asked.min_delta)
    if not isinstance(schedule, PlateauSchedule):
        return ValidationMonitor(metric=metric, stopping=stopping, plateau=None, factor=1.0, smallest_rate=0.0)
    plateau = EarlyStopping(metric=metric, patience=schedule.patience, min_delta=schedule.min_delta)
    return ValidationMonitor(
        metric=metric, stopping=stopping, plateau=plateau, factor=schedule.factor, smallest_rate=schedule.smallest
    )


def follow_up(
    monitor: ValidationMonitor, run: RunState, scores: Mapping[str, float], progress: Progress
) -> tuple[RunState, bool]:
    """Act on an evaluation: keep the best weights, reduce the learning rate.

    Args:
        monitor: judges the scores.
        run: the run that was evaluated.
        scores: scores on the validation split.
        progress: shows when the learning rate is reduced.

    Returns:
        The run after that, and whether it should stop.
    """
    finding = monitor.observe(run.watched, scores)
    if finding.improved and monitor.keeps_best:
        # Copied: the next step uses up its state's buffers.
        run = replace(run, best=jax.tree.map(jnp.array, (run.weights, run.state.rest)))
    if finding.reduce_rate is not None:
        optimizer = reduce_rate(run.state.optimizer, finding.reduce_rate, smallest=monitor.smallest_rate)
        progress.say(f"Learning rate reduced to {rate_factor(optimizer):.3g} of its initial value at step {run.step}.")
        run = replace(run, state=replace(run.state, optimizer=optimizer))
    return replace(run, watched=finding.watched), finding.stop
