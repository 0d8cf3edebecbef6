"""`dpmed predict`."""

from pathlib import Path
from typing import Annotated

import typer

from dpmed.cli.shared.options import Json, Out, console_of
from dpmed.errors import RunError


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(rich_help_panel="Use")(predict)


def predict(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run folder, or a bundle of `dpmed export`.")],
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT…", help="Files, folders (searched recursively), CSV with a column image."),
    ],
    also: Annotated[
        list[Path] | None,
        typer.Option("--model", metavar="MODEL", help="Another model, to average over several; repeatable."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="T", help="Probability from which the second of two classes, or a label, is predicted; default 0.5."
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, metavar="N", help="Images per batch.")] = None,
    flip: Annotated[
        list[int] | None,
        typer.Option(metavar="AXIS", help="Average over images mirrored along this axis (0, 1, …); repeatable."),
    ] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Predict images or volumes with a model; continues an unfinished prediction if --out holds the same one."""
    console = console_of(ctx, json=json)
    from dpmed.files import new_run_folder
    from dpmed.workflows import predict as workflow

    settings = workflow.PredictSettings(
        models=(model, *(also or ())),
        inputs=tuple(inputs),
        threshold=threshold,
        batch_size=batch_size,
        flips=tuple(flip or ()),
    )
    job = workflow.prepare(settings, console)
    folder = out or new_run_folder(None, command="predict", config_name=model.resolve().name)
    summary = workflow.run(job, folder, console)
    console.facts("Predictions", summary.describe())
    for note in summary.notes:
        console.say(f"Warning: {note}")
    console.result(summary.to_json(), summary.folder)
    if summary.errors:
        often = "most often: " if summary.errors > 1 else ""
        problem = f"{summary.errors} of {summary.inputs} inputs could not be read ({often}{summary.reason})"
        console.error(RunError(problem, remedy=f"The column error of {workflow.PREDICTIONS} has the reason of each."))
        raise typer.Exit(1)
