"""`dpmed export`."""

from pathlib import Path
from typing import Annotated

import typer

from dpmed.cli.shared.options import Json, Out, console_of
from dpmed.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(rich_help_panel="Use")(export)


def export(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    out: Out = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="safetensors (always written), onnx or stablehlo; repeatable."),
    ] = None,
    not_private: Annotated[
        bool, typer.Option("--not-private", help="Allow a run without ε or with seeded noise; its card says so.")
    ] = False,
    include_metrics: Annotated[
        bool,
        typer.Option("--include-metrics", help="State test metrics on the card, marked as not covered by ε."),
    ] = False,
    json: Json = False,
) -> None:
    """Write a model as a bundle that others can use: weights, description, ledger, model card, checksums."""
    console = console_of(ctx, json=json)
    from dpmed.files import new_run_folder
    from dpmed.workflows import export as workflow

    unknown = [name for name in formats or () if name not in workflow.FORMATS]
    if unknown:
        raise InputError(f"{unknown[0]!r} is not one of {', '.join(workflow.FORMATS)}", where="--format")
    settings = workflow.ExportSettings(
        run=run,
        formats=tuple(name for name in workflow.FORMATS if name in (formats or ())),
        not_private=not_private,
        include_metrics=include_metrics,
    )
    stored = workflow.check(settings, console)
    folder = new_run_folder(out, command="export", config_name=run.resolve().name)
    summary = workflow.run(settings, stored, folder, console)
    console.facts("Export", summary.describe())
    if summary.warning is not None:
        console.say(f"Warning: not private; the bundle must stay within your institution: {summary.warning}.")
    console.result(summary.to_json(), summary.folder)
