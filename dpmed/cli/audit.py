"""`dpmed audit`."""

from typing import TYPE_CHECKING, Annotated

import typer

from dpmed.cli.shared.options import Json, Out, Overrides, complete_config, console_of
from dpmed.errors import InputError

if TYPE_CHECKING:
    from dpmed.workflows.audit import Kind

_FEWEST = 20


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(rich_help_panel="Risk")(audit)


def audit(
    ctx: typer.Context,
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A TOML file or a shipped config.", autocompletion=complete_config)
    ],
    canaries: Annotated[
        int, typer.Option(metavar="M", help="Number of canaries, records whose membership is guessed.")
    ] = 1000,
    kind: Annotated[
        str,
        typer.Option(metavar="gradient|input|all", help="Canaries: directions of the gradient or mislabelled images."),
    ] = "gradient",
    confidence: Annotated[
        float, typer.Option(metavar="C", help="Confidence with which all lower limits hold jointly.")
    ] = 0.95,
    overrides: Overrides = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Audit a training: a lower limit on its ε, from canaries that did or did not take part."""
    from dpmed.config.load import load_config
    from dpmed.files import new_run_folder
    from dpmed.rounding import stated_delta
    from dpmed.workflows import audit as workflow

    console = console_of(ctx, json=json)
    chosen: dict[str, tuple[Kind, ...]] = {
        "gradient": ("gradient",), "input": ("input",), "all": ("gradient", "input")
    }  # fmt: skip
    if kind not in chosen:
        raise InputError("must be gradient, input or all", where=f"--kind {kind}")
    if canaries < _FEWEST:
        raise InputError(f"must be at least {_FEWEST}", where=f"--canaries {canaries}")
    if not 0.5 < confidence < 1:  # noqa: PLR2004 a limit no more reliable than a coin says nothing
        raise InputError("must be above 0.5 and below 1", where=f"--confidence {confidence:g}")
    loaded = load_config(config, overrides or [])
    with loaded.locating():
        plan = workflow.prepare(loaded.config, chosen[kind], console)
        folder = new_run_folder(out, command="audit", config_name=loaded.name)
        summary = workflow.run(plan, chosen[kind], folder, console, canaries=canaries, confidence=confidence)
    title = f"ε at δ = {stated_delta(summary.delta)}, jointly with {100 * confidence:g} % confidence"
    console.table(title, *summary.table())
    console.table("Membership inference on the training set itself, by the loss", *summary.membership_table())
    for remark in summary.remarks:
        console.text(remark)
    console.result(summary.to_json(), folder)
    if summary.is_contradicted:
        raise typer.Exit(1)
