"""`dpmed budget`."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from dpmed.cli.shared.options import Json, Overrides, complete_config, console_of


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(rich_help_panel="Risk")(budget)


def budget(
    ctx: typer.Context,
    cohort: Annotated[Path, typer.Argument(metavar="COHORT", help="The file that privacy.cohort names in a config.")],
    limit: Annotated[
        float | None,
        typer.Option(
            metavar="E", help="Set the largest ε that any unit may spend; a run that would exceed it is refused."
        ),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(metavar="CONFIG", help="Show what this run would cost.", autocompletion=complete_config),
    ] = None,
    overrides: Overrides = None,
    who: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="NAME",
            help="Show which runs trained on this unit: its name in the data set, a patient ID of DICOM headers, or an "
            "image's file.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show what each patient of a cohort has spent over all runs, and what is left."""
    from dpmed.config.load import load_config
    from dpmed.errors import InputError
    from dpmed.workflows import budget as workflow

    console = console_of(ctx, json=json)
    if limit is not None and not 0 < limit < float("inf"):
        raise InputError("must be above 0", where=f"--limit {limit:g}")
    if overrides and check is None:
        raise InputError("can only be used with --check", where="--set")
    loaded = None if check is None else load_config(check, overrides or [])
    with nullcontext() if loaded is None else loaded.locating():
        summary = workflow.run(cohort, console, limit=limit, check=None if loaded is None else loaded.config, who=who)
    console.facts("Budget", summary.facts())
    if summary.snapshot.runs:
        console.table("Runs", *summary.table())
    console.result(summary.to_json(), cohort)
