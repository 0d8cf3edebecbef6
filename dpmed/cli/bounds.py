"""`dpmed bounds`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpmed.cli.shared.console import Console
from dpmed.cli.shared.fields import one_of
from dpmed.cli.shared.options import Json, Out, complete_config, console_of

if TYPE_CHECKING:
    from dpmed.privacy.loss.losses import Adversary
    from dpmed.workflows.bounds.budgets import Spacing
    from dpmed.workflows.bounds.summary import BoundsSummary

SPACINGS: "dict[str, Spacing]" = {"log": "log", "linear": "linear"}
ADVERSARIES: "dict[str, tuple[Adversary, ...]]" = {
    "worst-case": ("worst-case",), "relaxed": ("relaxed",), "both": ("worst-case", "relaxed")
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(rich_help_panel="Risk")(bounds)


def bounds(
    ctx: typer.Context,
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG",
            help="A config, a run or a folder of several runs that gives the settings; default: HAM10000 as in the "
            "paper.",
            autocompletion=complete_config,
        ),
    ] = None,
    eps_min: Annotated[float | None, typer.Option(help="Smallest ε of a sweep (default 1).")] = None,
    eps_max: Annotated[float | None, typer.Option(help="Largest ε of a sweep (default 1e6).")] = None,
    num: Annotated[int, typer.Option(help="Budgets in the sweep.")] = 50,
    spacing: Annotated[str, typer.Option(help="log or linear.", callback=one_of(*SPACINGS))] = "log",
    epsilons: Annotated[
        list[float] | None, typer.Option("--eps", help="A single ε instead of a sweep; repeatable.")
    ] = None,
    noise_multipliers: Annotated[
        list[float] | None, typer.Option("--noise-multiplier", help="A single σ instead of ε; repeatable.")
    ] = None,
    train_size: Annotated[int | None, typer.Option(help="Training records N.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Expected batch size.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps T.")] = None,
    delta: Annotated[float | None, typer.Option(help="δ.")] = None,
    prior: Annotated[float | None, typer.Option(help="κ, the chance of guessing right; default 1/N.")] = None,
    accountant: Annotated[str | None, typer.Option(help="Accountant that ε refers to: pld or rdp.")] = None,
    adversary: Annotated[
        str, typer.Option(help="worst-case, relaxed or both.", callback=one_of(*ADVERSARIES))
    ] = "both",
    max_risk: Annotated[
        float | None, typer.Option(metavar="R", help="The inverse: the largest ε that keeps the risk at or below R.")
    ] = None,
    attack_results: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also plot what the prior-aware attack measured (its prior_aware.csv)."),
    ] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Bound the risk of reconstruction and of membership inference from above and below; opens no image."""
    console = console_of(ctx, json=json)
    from dpmed.files import new_run_folder
    from dpmed.workflows.bounds import run as workflow
    from dpmed.workflows.bounds.attack_results import adopt
    from dpmed.workflows.bounds.budgets import AskedBudgets, choose
    from dpmed.workflows.bounds.settings import BoundsSettings, GivenOptions, gather

    given = GivenOptions(
        train_size=train_size, batch_size=batch_size, steps=steps, delta=delta, prior=prior, accountant=accountant
    )
    asked = AskedBudgets(
        epsilons=tuple(epsilons or ()),
        noise_multipliers=tuple(noise_multipliers or ()),
        lowest=eps_min,
        highest=eps_max,
        count=num,
        spacing=SPACINGS[spacing],
        max_risk=max_risk,
    )
    given, measured = adopt(attack_results, given, console)
    facts, source = gather(config, given, console)
    settings = BoundsSettings(
        **choose(facts, asked), adversaries=ADVERSARIES[adversary], source=source, attack_results=measured
    )
    workflow.check(settings)
    without = "options" if given.say_all else "ham10000-paper"
    name = Path(config).resolve().name.removesuffix(".toml") if config else without
    folder = new_run_folder(out, command="bounds", config_name=name)
    summary = workflow.run(settings, folder, console)
    _show(console, summary)
    console.result(summary.to_json(), folder)


def _show(console: Console, summary: "BoundsSummary") -> None:
    if summary.rows:
        console.table("Bounds on the chance of reconstruction", *summary.table())
    if summary.max_risk:
        console.table("What keeps the risk at or below its limit", *summary.inverse_table())
    for note in summary.notes():
        console.text(note)
