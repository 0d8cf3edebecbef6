"""`dpmed train`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpmed.cli.shared.advising import start_advice, start_tuning
from dpmed.cli.shared.console import Console
from dpmed.cli.shared.options import Json, Out, Overrides, complete_config, console_of
from dpmed.cli.shared.several import check_seed, split_sweep, start_selection, start_several
from dpmed.errors import InputError

_OF_SEVERAL_SEEDS = ("--seeds", "--epsilons", "--resume")

if TYPE_CHECKING:
    from dpmed.planning.plan import Plan
    from dpmed.runtime.distributed import Launch
    from dpmed.workflows.train.summary import TrainSummary


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(rich_help_panel="Train")(train)


def train(
    ctx: typer.Context,
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="A TOML file or a shipped config.", autocompletion=complete_config),
    ] = None,
    overrides: Overrides = None,
    seed: Annotated[int | None, typer.Option(help="Shorthand for --set training.seed=N.")] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="10,11,…", help="One run per seed, then a table; makes only the runs missing in --out."),
    ] = None,
    epsilons: Annotated[
        str | None,
        typer.Option(
            metavar="1,8,…",
            help="One run per ε and one without privacy, then a table and a plot; can be combined with --seeds.",
        ),
    ] = None,
    select: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Choose the best by validation among a random number of runs, N on average, or among N runs where "
            "these cost less ε; continues in --out.",
        ),
    ] = None,
    tune: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Try N settings (learning rate, clipping norm, batch size, epochs) and keep the best: on the public "
            "data of --on at no cost in ε, or on the training data at the cost of --select; continues in --out.",
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="CONFIG", help="With --tune: a config of public data, such as phantoms, to try settings on."
        ),
    ] = None,
    out: Out = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Resume the run in this folder.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, the data found and a contact sheet; train nothing.")
    ] = False,
    advise: Annotated[
        bool,
        typer.Option("--advise", help="Suggest batch size, epochs and clipping from public facts; train nothing."),
    ] = False,
    json: Json = False,
) -> None:
    """Train a model, with differential privacy if the config has a privacy table."""
    console = console_of(ctx, json=json)
    overrides = [*(overrides or []), *([] if seed is None else [f"training.seed={seed}"])]
    overrides, swept = split_sweep(overrides, epsilons)
    modes = {
        "--select": select,
        "--tune": tune,
        "--advise": advise or None,
        "--seeds": seeds,
        "--epsilons": swept,
        "--resume": resume,
        "--dry-run": dry_run or None,
    }
    if seed is not None:
        check_seed(seed)
    if resume is not None and (config is not None or overrides or out is not None or dry_run):
        raise InputError("takes no other options: the config is in the run folder", where="--resume")
    chosen = _check_modes([option for option, given in modes.items() if given is not None], seed=seed, on=on)
    launch = _launch(chosen)
    if resume is not None:
        _resume(console, resume, launch)
    elif config is None:
        raise InputError("is missing", where="CONFIG", remedy="Try `dpmed train quickstart`.")
    elif select is not None:
        start_selection(console, config, overrides, out, mean=select)
    elif tune is not None:
        start_tuning(console, config, overrides, out, settings=tune, on=on)
    elif advise:
        start_advice(console, config, overrides, out)
    elif seeds is not None or swept is not None:
        start_several(console, config, overrides, out, seeds=seeds, epsilons=swept)
    elif dry_run:
        _dry_run(console, config, overrides, out)
    else:
        _start(console, config, overrides, out, launch)


def _check_modes(chosen: list[str], *, seed: int | None, on: str | None) -> list[str]:
    """The modes of this call: at most one, or seeds and budgets together.

    Raises:
        InputError: options cannot be combined.
    """
    if len(chosen) > 1 and set(chosen) != {"--seeds", "--epsilons"}:
        raise InputError(f"cannot be combined with {' or '.join(chosen[1:])}", where=chosen[0])
    if seed is not None and chosen and chosen[0] in _OF_SEVERAL_SEEDS:
        raise InputError("cannot be combined with --seed", where=chosen[0])
    if on is not None and chosen != ["--tune"]:
        raise InputError(
            "names the public data on which settings are tried, so it can only be used with --tune", where="--on"
        )
    return chosen


def _launch(chosen: list[str]) -> "Launch | None":
    from dpmed.runtime.distributed import launch_of

    launch = launch_of(os.environ)
    if launch is not None and chosen and chosen != ["--resume"]:
        remedy = "Start it once, or start a job for each run."
        raise InputError(
            f"cannot be shared by {launch.world_size} processes", where=" and ".join(chosen), remedy=remedy
        )
    return launch


def _dry_run(console: Console, config: str, overrides: list[str], out: Path | None) -> None:
    from dpmed.config.load import load_config
    from dpmed.files import new_run_folder
    from dpmed.planning.plan import make_plan
    from dpmed.workflows.train import run as workflow

    loaded = load_config(config, overrides)
    with loaded.locating():
        plan = make_plan(loaded.config, console)
        _show_plan(console, plan)
        folder = new_run_folder(out, command="plan", config_name=loaded.name)
        content = workflow.dry_run(plan, folder)
    console.facts("Found", content.pop("facts"))
    console.result({"folder": str(folder), **content}, folder)


def _start(console: Console, config: str, overrides: list[str], out: Path | None, launch: "Launch | None") -> None:
    from dpmed.config.load import load_config
    from dpmed.files import new_run_folder
    from dpmed.planning.plan import make_plan
    from dpmed.runtime.distributed import join
    from dpmed.workflows.train import run as workflow

    loaded = load_config(config, overrides)
    processes = join(launch)
    console.mute(processes.index)
    with loaded.locating(), processes.together():
        plan = make_plan(loaded.config, console)
        _show_plan(console, plan)
        folder = None
        if processes.is_first:
            folder = new_run_folder(out, command="train", config_name=loaded.name)
    shared = Path(processes.first(str(folder)))
    with loaded.locating():
        summary = workflow.run(plan, shared, console, processes=processes)
    _show_summary(console, summary)


def _resume(console: Console, folder: Path, launch: "Launch | None") -> None:
    from dpmed.config.load import LoadedConfig
    from dpmed.files import CONFIG_FILE
    from dpmed.inference.run_folder import read_config
    from dpmed.planning.plan import make_plan
    from dpmed.runtime.distributed import join
    from dpmed.workflows.train import run as workflow

    processes = join(launch)
    console.mute(processes.index)
    loaded = LoadedConfig(config=read_config(folder), name=folder.name, source=str(folder / CONFIG_FILE))
    with loaded.locating():
        with processes.together():
            plan = make_plan(loaded.config, console)
            _show_plan(console, plan)
        summary = workflow.resume(folder, console, plan=plan, processes=processes)
    _show_summary(console, summary)


def _show_plan(console: Console, plan: "Plan") -> None:
    console.plan("Plan", plan.describe())
    for warning in (*plan.warnings, *plan.facts.notes):
        console.say(f"Warning: {warning}")


def _show_summary(console: Console, summary: "TrainSummary | None") -> None:
    if summary is None:
        return
    console.facts("Result", summary.describe())
    for sentence in (*summary.notes, *summary.release):
        console.text(sentence)
    console.result({"folder": str(summary.folder), **summary.to_json()}, summary.folder)
