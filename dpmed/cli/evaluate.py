"""`dpmed evaluate`."""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from dpmed.cli.shared.console import Console
from dpmed.cli.shared.fields import one_of
from dpmed.cli.shared.options import Json, Out, Overrides, complete_config, console_of
from dpmed.errors import InputError

if TYPE_CHECKING:
    from dpmed.workflows.evaluate.summary import EvaluateSummary


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(rich_help_panel="Use")(evaluate)


def evaluate(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run folder, or a bundle of `dpmed export`.")],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="CONFIG",
            help="Config whose data set is used; default: the run's own.",
            autocompletion=complete_config,
        ),
    ] = None,
    overrides: Overrides = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="PART",
            help="test, validation, train or all; default: test for the run's own data, all for other data.",
        ),
    ] = None,
    break_down_by: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Metrics for each value of this column of the data set; repeatable."),
    ] = None,
    sensitivity: Annotated[
        float | None, typer.Option(metavar="S", help="Operating point with this sensitivity.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(metavar="T", help="Operating point at this probability.")] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="A second model, compared on the same images, paired.")
    ] = None,
    by_unit: Annotated[
        str | None,
        typer.Option(
            metavar="mean|max",
            help="One prediction per patient (or lesion, scan): mean or largest probability of its images.",
            callback=one_of("mean", "max"),
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(metavar="MM", help="Tolerance of surface Dice; in pixels where no file gives their size.")
    ] = 2.0,
    fit_temperature: Annotated[
        bool,
        typer.Option("--fit-temperature", help="First calibrate on the run's validation split, and use the result."),
    ] = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """Evaluate a model on a data set: metrics with intervals, subgroups, thresholds, calibration."""
    from dpmed.config.load import load_config
    from dpmed.files import new_run_folder
    from dpmed.workflows.evaluate import run as workflow
    from dpmed.workflows.evaluate.scored import Joined
    from dpmed.workflows.evaluate.summary import EvaluateSettings, Part

    console = console_of(ctx, json=json)
    joins: dict[str, Joined] = {name: name for name in get_args(Joined)}
    parts: dict[str, Part] = {name: name for name in get_args(Part)}
    if split is not None and split not in parts:
        raise InputError(f"must be one of {', '.join(parts)}", where=f"--split {split}")
    for name, value in (("--sensitivity", sensitivity), ("--threshold", threshold)):
        if value is not None and not 0 < value < 1:
            raise InputError("must be above 0 and below 1", where=f"{name} {value:g}")
    if overrides and data is None:
        raise InputError("can only be used with --data", where="--set")
    if not 0 <= tolerance < math.inf:
        raise InputError("must be a finite number, at least 0", where=f"--tolerance {tolerance:g}")
    loaded = None if data is None else load_config(data, overrides or [])
    settings = EvaluateSettings(
        part=None if split is None else parts[split],
        break_down_by=tuple(break_down_by or ()),
        sensitivity=sensitivity,
        threshold=threshold,
        against=against,
        by_unit=None if by_unit is None else joins[by_unit],
        tolerance=tolerance,
        fit_temperature=fit_temperature,
    )
    with nullcontext() if loaded is None else loaded.locating():
        job = workflow.prepare(model, None if loaded is None else loaded.config, settings, console)
        folder = new_run_folder(out, command="evaluate", config_name=model.resolve().name)
        summary = workflow.run(job, folder, console)
    _show(console, summary)
    console.result(summary.to_json(), folder)


def _show(console: Console, summary: "EvaluateSummary") -> None:
    from dpmed.workflows.evaluate.comparison import delong_table, table_of

    console.table(summary.what, *summary.table())
    if summary.subgroups:
        console.table("Subgroups", *summary.subgroup_table())
    if summary.comparison is not None:
        console.table("Paired differences", *table_of(summary.comparison))
        if summary.comparison.areas:
            console.table("DeLong's test", *delong_table(summary.comparison))
    for note in summary.notes:
        console.text(note)
