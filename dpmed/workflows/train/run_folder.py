"""The folder of a training run, and the order in which it is written.

The order is what makes a crash harmless. A draw is on record before it is made. The ledger reaches the disk before
anything that it covers, and always covers all draws up to the next checkpoint: whatever a crash leaves behind, the
ledger beside it claims no less than was spent. Of what a resume needs, `config.toml` comes last, so a folder with a
config can always be resumed; `summary.json` comes last of all, so a folder with a summary is finished.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from dpmed.config.load import config_to_toml
from dpmed.errors import InputError
from dpmed.files import CONFIG_FILE, EQX_FILE, digest_of, make_folder, write_csv, write_json, write_text
from dpmed.inference.composed_ledger import listed
from dpmed.inference.ledger import LEDGER_FILE, ledger_in
from dpmed.inference.run_folder import SUMMARY_FILE, write_description
from dpmed.models.weights import save_weights
from dpmed.planning.computation import Computation
from dpmed.planning.plan import Plan
from dpmed.planning.run_ledger import run_ledger
from dpmed.privacy.ledger import Digests, Ledger, describe_release
from dpmed.progress import Progress
from dpmed.runtime.distributed import ALONE, Processes
from dpmed.training.checkpoint import (
    CHECKPOINTS,
    DrawJournal,
    Position,
    list_checkpoints,
    load_checkpoint,
    read_position,
    save_checkpoint,
)
from dpmed.training.evaluate import Predictions
from dpmed.training.loop import Counts, Outcome, RunState
from dpmed.training.tracking import Tracker, open_tracker
from dpmed.workflows.train.draws import count_draws
from dpmed.workflows.train.final_test import interval_notes, write_test
from dpmed.workflows.train.kept_split import write_split
from dpmed.workflows.train.own_code import write_code
from dpmed.workflows.train.siblings import keep_begun_run
from dpmed.workflows.train.summary import TrainSummary
from dpmed.workflows.train.trials import METRICS_TABLE, note_begun

INTERNAL_FILE = "internal.json"
METHOD = "bookkeeping"
_KEEP_INSIDE = "Exact numbers from private data, not covered by ε: this file must stay within your institution."


@dataclass(frozen=True, kw_only=True, eq=False)
class RunFolder:
    """A run's folder during the run. Of several processes only the first writes.

    Attributes:
        path: the folder.
        plan: the plan of the run.
        config_digest: SHA-256 of config.toml, which ties checkpoints to their run.
        checkpoint: the one from which the run resumes; None if it starts afresh.
        is_writer: whether this process writes.
        journal: the journal of draws; None where a lost draw reveals nothing new, since the seed repeats it.
        tracker: receives the rows of metrics.csv too.
        notes: for the ledger, beyond the plan's; `note` adds to them.
    """

    path: Path
    plan: Plan
    config_digest: str
    checkpoint: Path | None
    is_writer: bool
    journal: DrawJournal | None
    tracker: Tracker
    notes: list[str]

    @property
    def draws(self) -> int:
        """Draws on record."""
        return 0 if self.journal is None else self.journal.draws

    def restore(self, computation: Computation) -> RunState:
        """The run at its checkpoint, or before its first step.

        Raises:
            InputError: the checkpoint is damaged, or belongs to another config or version.
        """
        if self.checkpoint is None:
            return computation.begin(computation.fitting_microbatch())
        # The checkpoint's microbatch determined the rounding, whatever this machine would choose today.
        fresh = computation.begin(_position(self.checkpoint, self.plan, self.config_digest).microbatch)
        like = (fresh.state, fresh.ema, fresh.best)
        position, tree = load_checkpoint(self.checkpoint, like, config_digest=self.config_digest)
        if position.method != METHOD:
            raise InputError(
                f"was made with per-sample gradients by {position.method!r}; this version computes them by {METHOD!r}",
                where=str(self.checkpoint),
                remedy="Resume with the version of dpmed that began the run, or start a new run.",
            )
        state, ema, best = computation.devices.placed(tree)
        return replace(
            fresh,
            state=state,
            ema=ema,
            best=best,
            step=position.step,
            draws=position.draws,
            seconds=position.seconds,
            records=position.records,
            rows=position.rows,
            counts=Counts(*position.losses),
            watched=position.watched,
        )

    def open(self, run: RunState) -> None:
        """Write, before the first draw, what only insiders may know, and the ledger up to the first checkpoint.

        Only then is a trial, or one of several runs, kept as one that has begun: without a ledger it has made no draw.

        Raises:
            InputError: the run is a trial of a selection whose file is damaged.
        """
        if self.is_writer:
            write_json(self.path / INTERNAL_FILE, {"keep": _KEEP_INSIDE, "units": self.plan.units.to_json()})
        ledger = self._write_ledger_ahead(run)
        if self.is_writer:
            note_begun(self.path, ledger.to_json())
            keep_begun_run(self.path, ledger.to_json())

    def note(self, notes: Iterable[str]) -> None:
        """Add notes to the ledger, also to the one on the disk, which must not be silent on draws yet to be made."""
        self.notes.extend(note for note in notes if note not in self.notes)
        ledger = ledger_in(self.path)
        known = listed(ledger, "notes")
        missing = [note for note in self.notes if note not in known]
        if self.is_writer and ledger and missing:
            write_json(self.path / LEDGER_FILE, {**ledger, "notes": [*known, *missing]})

    def before_draw(self, draws: int) -> None:
        """Record that `draws` draws have been begun."""
        if self.journal is not None:
            self.journal.begin(draws)

    def save(self, run: RunState) -> None:
        """Write the ledger, then the metrics, then the checkpoint."""
        self._write_ledger_ahead(run)
        self._write_rows(run.rows)
        position = Position(
            config_digest=self.config_digest,
            step=run.step,
            draws=run.draws,
            microbatch=run.microbatch,
            method=METHOD,
            seconds=run.seconds,
            records=run.records,
            rows=run.rows,
            losses=run.counts,
            watched=run.watched,
        )
        if self.is_writer:
            save_checkpoint(self.path / CHECKPOINTS, position, (run.state, run.ema, run.best))

    def write_spent(self, outcome: Outcome) -> None:
        """Write, after the last draw, the ledger of what was spent."""
        if outcome.finished:
            self._write_ledger(self._counted(outcome.run), "running")
        else:
            self._write_ledger(outcome.run.draws, "stopped")

    def finish(self, run: RunState, predictions: Predictions, model: tuple[PyTree, PyTree]) -> TrainSummary:
        """Score the test split, then write scores, ledger, model, metrics, curves and summary.

        Args:
            run: the run at its end.
            predictions: for the test split.
            model: the model with its final weights, and its running statistics.
        """
        # Imported at a run's end, since importing matplotlib takes longer than the first step of a small network.
        from dpmed.figures.curves import plot_curves

        plan = self.plan
        scores, intervals = write_test(plan, predictions, self.path)
        # On disk before the model that it covers, and again once it can be bound to the model's bytes.
        self._write_ledger(self._counted(run), "finished")
        write_description(self.path, plan.config, plan.dataset)
        save_weights(self.path / EQX_FILE, model)
        ledger = self._write_ledger(self._counted(run), "finished", model=digest_of(self.path / EQX_FILE))
        test = {"epoch": run.step / plan.steps_per_epoch, "step": run.step, "epsilon": ledger.epsilon}
        rows = (*run.rows, {**test, "split": "test", **scores})
        self._write_rows(rows)
        planned = None if plan.budget is None else plan.budget.epsilon
        plot_curves(rows, self.path, metric=plan.main_metric, epsilon_planned=planned)
        summary = TrainSummary(
            folder=self.path,
            test=scores,
            main_metric=plan.main_metric,
            intervals=intervals,
            epsilon=ledger.epsilon,
            delta=ledger.delta,
            steps=run.step,
            seconds=run.seconds,
            samples_per_second=run.records / run.seconds if run.seconds else 0.0,
            notes=(*ledger.notes, *interval_notes(plan, predictions, scores, intervals)),
            release=tuple(describe_release(ledger)),
        )
        write_json(self.path / SUMMARY_FILE, summary.to_json())
        return summary

    def close(self) -> None:
        """Close the files that stay open while the run trains."""
        self.tracker.close()
        if self.journal is not None:
            self.journal.close()

    def _write_rows(self, rows: tuple[Mapping[str, Any], ...]) -> None:
        first = ["epoch", "step", "epsilon", "split", "loss"]
        others = dict.fromkeys(name for row in rows for name in row if name not in first)
        if self.is_writer:
            write_csv(self.path / METRICS_TABLE, rows, [*first, *others])
            self.tracker.write(rows)

    def _counted(self, run: RunState) -> int:
        """The draws that a finished run has spent.

        All planned ones, also if early stopping made fewer: when it stops depends on the training records, and ε of the
        steps until such a time is no bound (Rogers et al., 2016). ε of all planned steps is: whoever stops only leaves
        out what could have been learned.
        """
        return run.draws if self.plan.budget is None else self.plan.steps

    def _write_ledger_ahead(self, run: RunState) -> Ledger:
        return self._write_ledger(min(run.draws + self.plan.steps_per_checkpoint, self.plan.steps), "running")

    def _write_ledger(self, draws: int, status: str, *, model: str | None = None) -> Ledger:
        digests = Digests(config=self.config_digest, model=model)
        ledger = run_ledger(self.plan, draws=draws, status=status, notes=self.notes, digests=digests)
        if self.is_writer:
            write_json(self.path / LEDGER_FILE, ledger.to_json())
        return ledger


def create_run_folder(path: Path, plan: Plan) -> None:
    """Write what a resume needs."""
    make_folder(path / CHECKPOINTS)
    write_split(path, plan)
    write_code(path, plan.config)
    write_text(path / CONFIG_FILE, config_to_toml(plan.config))


def open_run_folder(path: Path, plan: Plan, progress: Progress, *, processes: Processes = ALONE) -> RunFolder:
    """The folder of a run that starts or resumes; the caller holds its lock.

    Args:
        path: a folder that `create_run_folder` has written.
        plan: the plan of the run.
        progress: reports a journal that cannot be trusted.
        processes: those that train together; all call this together.

    Raises:
        InputError: a checkpoint is damaged or belongs to another config, or what was spent is unknown.
    """
    config = path / CONFIG_FILE
    digest = processes.first(hashlib.sha256(config.read_bytes()).hexdigest() if processes.is_first else None)
    checkpoint = next(iter(list_checkpoints(path / CHECKPOINTS)), None)
    position = None if checkpoint is None else _position(checkpoint, plan, digest)
    journal: DrawJournal | None = None
    notes: tuple[str, ...] = ()
    # A seeded run repeats the very draws that it lost, which reveals nothing new; a release run cannot.
    if processes.is_first and plan.budget is not None and plan.facts.source != "seeded":
        saved = None if position is None else position.draws
        counted = count_draws(path, saved=saved, planned=plan.steps, progress=progress)
        journal, notes = counted.journal, counted.notes
    track = plan.config.training.track if processes.is_first else ()
    return RunFolder(
        path=path,
        plan=plan,
        config_digest=digest,
        checkpoint=checkpoint,
        is_writer=processes.is_first,
        journal=journal,
        tracker=open_tracker(track, path, rows=() if position is None else position.rows),
        notes=list(notes),
    )


def _position(checkpoint: Path, plan: Plan, config_digest: str) -> Position:
    """The position in a checkpoint.

    Raises:
        InputError: the checkpoint is damaged, belongs to another config, or holds what no run of this plan does.
    """
    found = read_position(checkpoint, config_digest=config_digest)
    largest, is_private = plan.microbatches[0], plan.budget is not None
    problem = None
    if found.draws > plan.steps:
        problem = f"{found.draws} draws, but the plan has {plan.steps} steps"
    elif found.microbatch > largest:
        problem = f"{found.microbatch} records at once, but the plan's largest microbatch has {largest}"
    elif any((row["epsilon"] is not None) != is_private for row in found.rows):
        problem = "rows of metrics without ε, which the run has" if is_private else "an ε, which the run has not"
    if problem is not None:
        remedy = "Remove this file to resume from the previous checkpoint."
        raise InputError(f"does not fit its run: it holds {problem}", where=str(checkpoint), remedy=remedy)
    return found
