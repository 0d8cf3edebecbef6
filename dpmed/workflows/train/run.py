"""`dpmed train`: plan, train, test, write: as a new run, or from where a run stopped."""

import hashlib
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dpmed.config.load import config_to_toml
from dpmed.errors import DpmedError, RunError
from dpmed.files import exclusive_lock, make_folder, to_json, write_json
from dpmed.planning.computation import Computation, build_computation, chosen_microbatch, settle_places
from dpmed.planning.enrolment import enrol, enter_end, mark_over
from dpmed.planning.microbatch import describe_memory
from dpmed.planning.plan import Plan
from dpmed.planning.run_ledger import place_notes, with_earlier_uses, with_run_id, with_selection, with_siblings
from dpmed.planning.secrets import draw_secrets
from dpmed.progress import Progress
from dpmed.runtime.distributed import ALONE, Processes
from dpmed.training.checkpoint import CHECKPOINTS
from dpmed.training.loop import Hooks, Outcome, train
from dpmed.training.tracking import CAUTION, TENSORBOARD_FOLDER, check_trackers
from dpmed.training.validation_monitor import follow_up
from dpmed.workflows.train import inspection
from dpmed.workflows.train.draws import check_draws
from dpmed.workflows.train.kept_split import check_split, split_rows
from dpmed.workflows.train.own_code import check_code
from dpmed.workflows.train.run_folder import RunFolder, create_run_folder, open_run_folder
from dpmed.workflows.train.siblings import LOCK_FILE, folders_counting
from dpmed.workflows.train.stated import notes_of, run_id_of, selection_of, siblings_of, uses_of
from dpmed.workflows.train.summary import TrainSummary, versions


def run(
    plan: Plan, folder: Path, progress: Progress, *, processes: Processes = ALONE, is_member: bool = False
) -> TrainSummary | None:
    """Train a new run in an empty folder.

    Args:
        plan: what to train.
        folder: where to write; created by the caller.
        progress: reports to the user.
        processes: those that train together.
        is_member: whether the caller makes several runs, and holds the lock of the folder that counts them.

    Returns:
        What the run reached; None in all processes except the first, which alone writes.

    Raises:
        InputError: a unit would exceed its cohort's limit, or another process is making runs that count with this one.
        RunError: the user stopped the run, or the disk is full; the message says how to resume.
    """
    check_trackers(plan.config.training.track)
    with _counted_alone(folder, processes, is_member=is_member):
        return _begin(plan, folder, progress, processes)


def _begin(plan: Plan, folder: Path, progress: Progress, processes: Processes) -> TrainSummary | None:
    plan = replace(plan, facts=with_run_id(plan.facts))
    with processes.together():
        if processes.is_first:
            # Before anything that a resume would find, so a run that is refused leaves nothing to resume.
            try:
                enrol([(plan, folder / CHECKPOINTS)], progress)
            except DpmedError:
                with suppress(OSError):
                    folder.rmdir()
                raise
            create_run_folder(folder, plan)
    return _train(plan, folder, progress, processes)


def resume(
    folder: Path, progress: Progress, *, plan: Plan, processes: Processes = ALONE, is_member: bool = False
) -> TrainSummary | None:
    """Resume a run from its last checkpoint, or from its start if it has none; see `run`.

    The numbers of devices and processes may differ from before.

    Raises:
        InputError: a checkpoint is damaged or belongs to another config, or the data set or the user's own code has
            changed.
        RunError: as `run`.
    """
    check_trackers(plan.config.training.track)
    with _counted_alone(folder, processes, is_member=is_member):
        return _go_on(folder, progress, plan, processes)


def _go_on(folder: Path, progress: Progress, plan: Plan, processes: Processes) -> TrainSummary | None:
    if processes.is_first:
        make_folder(folder / CHECKPOINTS)
    check_code(folder, plan.config)
    check_split(folder, plan)
    facts = with_run_id(plan.facts, run_id_of(folder))
    if plan.budget is not None:
        check_draws(folder, plan.budget.mechanism)
        facts = with_earlier_uses(facts, uses_of(folder))
    plan = replace(plan, facts=with_siblings(facts, siblings_of(folder)))
    selection = selection_of(folder)
    if selection is not None and plan.facts.selection is None:
        # A trial that is resumed by itself is still a trial.
        plan = replace(plan, facts=with_selection(plan.facts, selection))
    with processes.together():
        if processes.is_first:
            enrol([(plan, folder / CHECKPOINTS)], progress)
    return _train(plan, folder, progress, processes)


@contextmanager
def _counted_alone(run: Path, processes: Processes, *, is_member: bool) -> Iterator[None]:
    """The folders that count a run with others, locked: while it trains nobody else rewrites their ledgers."""
    with ExitStack() as locks:
        with processes.together():
            if processes.is_first and not is_member:
                for folder in folders_counting(run):
                    locks.enter_context(exclusive_lock(folder / LOCK_FILE))
        yield


def dry_run(plan: Plan, folder: Path) -> dict[str, Any]:
    """The plan, with what the data contain and a step needs; writes `plan.json` and `contact_sheet.png`.

    Raises:
        InputError: a sample cannot be read.
    """
    found = inspection.run(plan.dataset, plan.split, seed=plan.config.training.seed, folder=folder)
    computation = build_computation(plan, draw_secrets(plan))
    microbatch = chosen_microbatch(computation)
    memory = computation.step_memory(microbatch)
    content = {**plan.to_json(), "microbatch": microbatch, "step_memory_bytes": memory, "data": found.to_json()}
    write_json(folder / "plan.json", content)
    return {**content, "facts": {**found.facts(), "memory of a step": describe_memory(memory, microbatch)}}


def _train(plan: Plan, path: Path, progress: Progress, processes: Processes) -> TrainSummary | None:
    with ExitStack() as held:
        held.enter_context(_locked(path, processes))
        held.enter_context(_resumable(path))
        wants_to_stop = held.enter_context(_stop_politely())
        if processes.world_size > 1:
            # Seconds, for hundreds of thousands of samples.
            processes.require_alike("the plan, its data or dpmed's version", _fingerprint(plan))
        computation = build_computation(plan, draw_secrets(plan, processes), processes=processes, features=progress)
        folder = held.enter_context(closing(open_run_folder(path, plan, progress, processes=processes)))
        state = folder.restore(computation)
        if folder.checkpoint is not None:
            progress.say(f"Resuming from step {state.step} ({folder.checkpoint.name}).")
        if plan.config.training.track:
            progress.say(f"Watch it with: tensorboard --logdir {path / TENSORBOARD_FOLDER}. {CAUTION}")
        state = replace(state, draws=max(state.draws, processes.first(folder.draws)))
        outcome = Outcome(run=state, finished=True)
        folder.note(place_notes(0.0, notes_of(path)))
        if not computation.is_over(state):
            settled = partial(_settled, computation, folder, progress)
            state = replace(state, microbatch=settled(state.microbatch))
            folder.open(state)
            hooks = Hooks(
                before_draw=folder.before_draw,
                save=folder.save,
                after_evaluation=lambda run, scores: follow_up(computation.monitor, run, scores, progress),
                should_stop=lambda: processes.any(wants_to_stop()),
                after_running_out=lambda loader: computation.loader(
                    # Another program, which may treat places differently.
                    settled(computation.smaller_microbatch(loader.microbatch))
                ),
                progress=progress,
            )
            outcome = train(computation.parts(state.microbatch), state, hooks)
        folder.write_spent(outcome)
        if processes.is_first:
            if outcome.finished:
                mark_over(plan, path / CHECKPOINTS)
            enter_end(
                plan, path / CHECKPOINTS, steps=outcome.run.draws, status="finished" if outcome.finished else "stopped"
            )
        if not outcome.finished:
            raise RunError(f"stopped after step {outcome.run.step}; nothing is lost", remedy=_how_to_resume(path))
        predictions = computation.test(outcome.run, progress)
        if not processes.is_first:
            return None
        return folder.finish(outcome.run, predictions, computation.final_model(outcome.run))


def _settled(computation: Computation, folder: RunFolder, progress: Progress, microbatch: int) -> int:
    """The microbatch with which a run goes on, or a smaller one; the ledger notes what places do in it."""
    settled, effect = settle_places(computation, microbatch)
    if settled < microbatch:
        progress.say(
            "On this machine, a record's gradient depends on its place in a microbatch by more than is allowed. "
            "Records are therefore computed one at a time, which is slower."
        )
    folder.note(place_notes(effect))
    return settled


@contextmanager
def _locked(path: Path, processes: Processes) -> Iterator[None]:
    """The run folder, locked against other runs by the process that writes."""
    with ExitStack() as lock:
        with processes.together():
            if processes.is_first:
                lock.enter_context(exclusive_lock(path / CHECKPOINTS / "lock"))
        yield


def _how_to_resume(path: Path) -> str:
    return f"Resume it with: dpmed train --resume {shlex.quote(str(path))}"


@contextmanager
def _resumable(path: Path) -> Iterator[None]:
    """Who stops a run at once, by a second Ctrl-C, is told how it goes on too."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise RunError("interrupted", remedy=_how_to_resume(path)) from error


def _fingerprint(plan: Plan) -> str:
    # With the units and names of samples: by older files, another process could draw a patient in another's place.
    known = [config_to_toml(plan.config), [[*row.values()] for row in split_rows(plan)], versions()]
    return hashlib.sha256(to_json(known).encode()).hexdigest()


@contextmanager
def _stop_politely() -> Iterator[Callable[[], bool]]:
    """Signals to stop are noted, and checked after every step; a second Ctrl-C or SIGTERM stops at once.

    The third is SIGHUP, sent when a terminal or its connection is closed, unless `nohup` has it ignored. It never stops
    at once: the system sends it, and so does the shell.
    """
    stop, asked = threading.Event(), threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return

    def ask(number: int, frame: Any) -> None:
        stop.set()
        if number == signal.SIGHUP:
            return
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield stop.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
