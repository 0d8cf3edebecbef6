"""`dpmed visualize`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpmed.cli.shared.console import Console
from dpmed.cli.shared.options import Json, Out, console_of
from dpmed.errors import InputError

if TYPE_CHECKING:
    from dpmed.workflows.visualize.run import VisualizeSummary


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(rich_help_panel="Attack")(visualize)


def visualize(
    ctx: typer.Context,
    table: Annotated[
        Path, typer.Argument(metavar="MATCHES_CSV", help="What `dpmed match` wrote: the table, or its folder.")
    ],
    metric: Annotated[str | None, typer.Option(help="One of the table's metrics; default: its first.")] = None,
    images: Annotated[int, typer.Option(metavar="N", help="Originals in the gallery.")] = 8,
    threshold: Annotated[
        list[float] | None,
        typer.Option(metavar="E", help="Distance within which an original counts as recovered; repeatable."),
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="I,J,…", help="Show these originals, numbered from 0 across all batches.")
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help="One or more of png, pdf and svg.")
    ] = "png,pdf,svg",
    reconstructions: Annotated[Path | None, typer.Option(metavar="DIR", help="The images, if they have moved.")] = None,
    bounds: Annotated[Path | None, typer.Option(metavar="BOUNDS_CSV", help="Bounds to show beside the shares.")] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Draw originals beside reconstructions and the share recovered, and write a one-page report."""
    console = console_of(ctx, json=json)
    from dpmed.files import new_run_folder
    from dpmed.workflows.visualize import run as workflow

    settings = workflow.VisualizeSettings(
        metric=metric,
        images=images,
        thresholds=tuple(threshold or ()),
        only=_numbers(only),
        formats=tuple(part.strip() for part in formats.split(",") if part.strip()),
        reconstructions=reconstructions,
        bounds=bounds,
    )
    job = workflow.prepare(table, settings)
    folder = new_run_folder(out, command="visualize", config_name=job.manifest.config_stem)
    summary = workflow.run(job, folder, console)
    _show(console, summary, job.caveats)
    console.result(summary.to_json(), summary.folder)


def _numbers(text: str | None) -> tuple[int, ...]:
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() for part in parts) or (text is not None and not parts):
        raise InputError("must be whole numbers separated by commas", where=f"--only {text}")
    return tuple(int(part) for part in parts)


def _show(console: Console, summary: "VisualizeSummary", caveats: Sequence[str]) -> None:
    from dpmed.rounding import percent, percent_interval
    from dpmed.workflows.visualize.findings import NO_SIGN

    marked = any(row.proves_nothing for row in summary.rows)
    rows = [
        [
            row.name,
            f"{row.threshold:g}{' *' if row.proves_nothing else ''}",
            f"{row.share.recovered}/{row.share.originals}",
            percent(row.share.share),
            percent_interval(row.share.low, row.share.high),
        ]
        for row in summary.rows
    ]
    console.text(summary.findings[0])
    console.table(f"ReRo ({summary.metric})", ["level", "within", "recovered", "share", "95 % interval"], rows)
    for caveat in (*([NO_SIGN] if marked else []), *caveats):
        console.text(caveat)
