"""`dpmed compare`."""

from pathlib import Path
from typing import Annotated

import typer

from dpmed.cli.shared.options import Json, Out, console_of


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(rich_help_panel="Use")(compare)


def compare(
    ctx: typer.Context,
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Finished run folders; the others are compared with the first."),
    ],
    paired: Annotated[
        bool,
        typer.Option(
            "--paired/--no-paired",
            help="Predict a shared test split again with each model, for differences on the same images.",
        ),
    ] = True,
    out: Out = None,
    json: Json = False,
) -> None:
    """Compare finished runs: test metrics with intervals, and paired differences where they share a test split."""
    from dpmed.files import new_run_folder
    from dpmed.workflows import compare as workflow

    console = console_of(ctx, json=json)
    found = workflow.read_runs(runs)
    folder = new_run_folder(out, command="compare", config_name=runs[0].resolve().name)
    summary = workflow.run(found, folder, console, paired=paired)
    console.table("Test metrics, 95 % intervals", *summary.table())
    if summary.comparisons:
        console.table("Paired differences", *summary.differences())
    for note in summary.notes:
        console.text(note)
    console.result(summary.to_json(), folder)
