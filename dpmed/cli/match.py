"""`dpmed match`."""

from pathlib import Path
from typing import Annotated

import typer

from dpmed.cli.shared.options import Json, Out, console_of
from dpmed.errors import InputError

_VOLUMES = ("volume", "slice")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(rich_help_panel="Attack")(match)


def match(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="RECON_DIR", help="What `dpmed reconstruct` wrote.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="mse, psnr, ssim (default), ms-ssim, gmsd, lpips or fid-features; repeatable."),
    ] = None,
    assignment: Annotated[str, typer.Option(help="nearest, or one-to-one (uses each reconstruction at most once).")] = (
        "nearest"
    ),
    min_nonzero: Annotated[
        float, typer.Option(metavar="F", help="Leave out originals with a smaller share of pixels above background.")
    ] = 0.0,
    save_matrices: Annotated[bool, typer.Option("--save-matrices", help="Keep all distances as .npy.")] = False,
    volumes: Annotated[str, typer.Option(help="Compare volumes as a `volume` or slice by `slice`.")] = "volume",
    lpips_weights: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights for lpips.")] = None,
    inception_weights: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights for fid-features.")] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Match every original with its most similar reconstruction, level by level."""
    console = console_of(ctx, json=json)
    from dpmed.files import new_run_folder
    from dpmed.matching.assignment import ASSIGNMENTS
    from dpmed.workflows import match as workflow

    if assignment not in ASSIGNMENTS:
        raise InputError(f"must be one of {', '.join(ASSIGNMENTS)}", where=f"--assignment {assignment}")
    if volumes not in _VOLUMES:
        raise InputError(f"must be one of {', '.join(_VOLUMES)}", where=f"--volumes {volumes}")
    settings = workflow.MatchSettings(
        metrics=tuple(metric or ["ssim"]),
        assignment="one-to-one" if assignment == "one-to-one" else "nearest",
        min_nonzero=min_nonzero,
        save_matrices=save_matrices,
        by_slice=volumes == "slice",
        lpips_weights=lpips_weights,
        inception_weights=inception_weights,
    )
    job = workflow.prepare(folder, settings)
    written = new_run_folder(out, command="match", config_name=job.manifest.config_stem)
    summary = workflow.run(job, written, console)
    console.table(f"Distances ({summary.assignment}; smaller is more alike)", *summary.table())
    console.result(summary.to_json(), summary.matches)
