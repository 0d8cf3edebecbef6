"""`dpmed evaluate`."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, get_args

import typer

from dpmed.cli.options import Json, Out, Overrides, complete_config, console_of, time_stamp
from dpmed.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(rich_help_panel="Use")(evaluate)


def evaluate(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run folder, or a bundle of `dpmed export`.")],
    data: Annotated[
        str | None,
        typer.Option(metavar="CONFIG", help="Whose data set; default: the run's own.", autocompletion=complete_config),
    ] = None,
    overrides: Overrides = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="test|validation|train|all", help="Default: test of the run's own data, all of others."),
    ] = None,
    break_down_by: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Metrics by this column of the data set; repeatable.")
    ] = None,
    sensitivity: Annotated[float | None, typer.Option(metavar="S", help="Operating point of this sensitivity.")] = None,
    threshold: Annotated[float | None, typer.Option(metavar="T", help="Operating point at this probability.")] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Say how good a model is on a data set: metrics with intervals, subgroups, thresholds, calibration."""
    from dpmed.config.load import load_config
    from dpmed.files import new_run_folder
    from dpmed.workflows.evaluate import run as workflow
    from dpmed.workflows.evaluate.summary import EvaluateSettings, Part

    console = console_of(ctx, json=json)
    parts: dict[str, Part] = {name: name for name in get_args(Part)}
    if split is not None and split not in parts:
        raise InputError(f"must be one of {', '.join(parts)}", where=f"--split {split}")
    for name, value in (("--sensitivity", sensitivity), ("--threshold", threshold)):
        if value is not None and not 0 < value < 1:
            raise InputError("must be above 0 and below 1", where=f"{name} {value:g}")
    if overrides and data is None:
        raise InputError("goes with --data", where="--set")
    loaded = None if data is None else load_config(data, overrides or [])
    settings = EvaluateSettings(
        part=None if split is None else parts[split],
        break_down_by=tuple(break_down_by or ()),
        sensitivity=sensitivity,
        threshold=threshold,
    )
    folder = new_run_folder(out, command="evaluate", config_name=model.resolve().name, time=time_stamp())
    with nullcontext() if loaded is None else loaded.locating():
        summary = workflow.run(model, None if loaded is None else loaded.config, settings, folder, console)
    console.table(
        f"{summary.n_samples} samples of {summary.n_units} {summary.unit}s ({summary.part})", *summary.table()
    )
    for note in summary.notes:
        console.text(note)
    console.result(summary.to_json(), folder)
