"""`dpmed reconstruct`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dpmed.attacks.table import ATTACKS
from dpmed.cli.shared.fields import one_of
from dpmed.cli.shared.options import Json, Out, Overrides, complete_config, console_of

CONFIG = typer.Argument(
    metavar="CONFIG", help="The training to attack; default: quickstart.", autocompletion=complete_config
)
LEVELS = "Levels ε = 10^n; or a single n, or several separated by commas; decimals allowed; default: 6:18:2."
NON_PRIVATE = "Also attack the training without privacy; default: yes, except for prior-aware."
IMAGES = "Images per update; default: the expected batch size, for inversion 1."
ROWS = "For block attacks: number of rows; default: two per image."
ITERATIONS = "For inversion: number of iterations; default: 1000."
CANDIDATES = "For prior-aware: number of candidates; the prior is 1 / N; default: 100."
TRIALS = "For prior-aware: trials per level and adversary; default: 1000."
WHOSE, PART = one_of("pld", "rdp"), one_of("all", "one")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(rich_help_panel="Attack")(reconstruct)


# Each parameter is named after its setting, so an error about a setting is shown as one about the option.
def reconstruct(
    ctx: typer.Context,
    config: Annotated[str, CONFIG] = "quickstart",
    overrides: Overrides = None,
    epsilons: Annotated[list[float] | None, typer.Option("--eps", metavar="E", help="A level ε; repeatable.")] = None,
    exponents: Annotated[str | None, typer.Option("--eps-exp", metavar="FIRST:LAST:STEP", help=LEVELS)] = None,
    non_private: Annotated[bool | None, typer.Option("--non-private/--no-non-private", help=NON_PRIVATE)] = None,
    attack: Annotated[str, typer.Option(help=f"{', '.join(ATTACKS)}.")] = "auto",
    batches: Annotated[int | None, typer.Option(metavar="N", help="Updates to attack; default: 1.")] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help=IMAGES)] = None,
    rows: Annotated[int | None, typer.Option("--bins", metavar="N", help=ROWS)] = None,
    accountant: Annotated[
        str | None, typer.Option(help="Accountant that ε refers to, pld or rdp; default: the config's.", callback=WHOSE)
    ] = None,
    steps: Annotated[
        str, typer.Option(help="σ for the whole training (all) or a single step (one).", callback=PART)
    ] = "all",
    weights: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Attack the weights of this run folder rather than fresh ones.")
    ] = None,
    iterations: Annotated[int | None, typer.Option("--inversion-steps", metavar="N", help=ITERATIONS)] = None,
    candidates: Annotated[int | None, typer.Option(metavar="N", help=CANDIDATES)] = None,
    trials: Annotated[int | None, typer.Option(metavar="N", help=TRIALS)] = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Attack your own training as a malicious server would, and keep what it recovers (sensitive!)."""
    console = console_of(ctx, json=json)
    from dpmed.attacks.table import read_settings
    from dpmed.config.load import load_config
    from dpmed.workflows.attack import levels, run, settings, unfinished

    names = ("batches", "batch_size", "rows", "iterations", "candidates", "trials")
    chosen = read_settings(attack, {name: ctx.params[name] for name in names})
    loaded = load_config(config, overrides or [])
    with loaded.locating():
        budgets = levels.choose_epsilons(
            chosen, loaded.config, epsilons=epsilons or (), exponents=exponents, non_private=non_private
        )
        facts: dict[str, Any] = {"accountant": accountant, "steps": steps, "weights": weights, "epsilons": budgets}
        asked = settings.ReconstructSettings(config=loaded.config, config_name=loaded.name, attack=chosen, **facts)
        job = run.prepare(asked, console)
        folder = unfinished.open_folder(out, digest=asked.digest, config_name=loaded.name)
        summary = run.run(job, folder, console)
    console.table(summary.title, *summary.table())
    for remark in summary.remarks:
        console.text(remark)
    console.result(summary.to_json(), summary.folder)
