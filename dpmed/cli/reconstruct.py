"""`dpmed reconstruct`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dpmed.cli.console import Console
from dpmed.cli.options import Json, Out, Overrides, complete_config, console_of, time_stamp
from dpmed.errors import InputError

if TYPE_CHECKING:
    from dpmed.config.load import LoadedConfig

ATTACKS = ("auto", "trap-weights", "imprint", "peeling", "prior-aware", "inversion")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(rich_help_panel="Attack")(reconstruct)


def reconstruct(
    ctx: typer.Context,
    config: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG", help="The training to attack; default: quickstart.", autocompletion=complete_config
        ),
    ] = "quickstart",
    overrides: Overrides = None,
    eps_exp: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST:LAST:STEP", help="Levels ε = 10^n; also a single n or a comma list.", show_default="6:18:2"
        ),
    ] = None,
    non_private: Annotated[
        bool, typer.Option("--non-private/--no-non-private", help="Also attack the training without privacy.")
    ] = True,
    attack: Annotated[str, typer.Option(help=f"{', '.join(ATTACKS)}.")] = "auto",
    batches: Annotated[int | None, typer.Option(metavar="N", help="Updates to attack.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Images per update; default: the expected batch size.")
    ] = None,
    bins: Annotated[int | None, typer.Option(metavar="N", help="Rows of the block; default: two per image.")] = None,
    accountant: Annotated[str | None, typer.Option(help="Which ε is meant, pld or rdp; default: the config's.")] = None,
    steps: Annotated[str, typer.Option(help="σ of the whole training (all) or of a single step (one).")] = "all",
    weights: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Attack the model of this run folder rather than a fresh one.")
    ] = None,
    inversion_steps: Annotated[int, typer.Option(metavar="N", help="Iterations of each inversion.")] = 1000,
    candidates: Annotated[int, typer.Option(metavar="N", help="Of prior-aware: the prior is 1 / N.")] = 100,
    trials: Annotated[int, typer.Option(metavar="N", help="Of prior-aware: games per level and adversary.")] = 1000,
    out: Out = None,
    json: Json = False,
) -> None:
    """Attack one's own training as a malicious server would, and keep what it recovers (sensitive!)."""
    console = console_of(ctx, json=json)
    for option, value, valid in (
        ("--attack", attack, ATTACKS),
        ("--accountant", accountant or "pld", ("pld", "rdp")),
        ("--steps", steps, ("one", "all")),
    ):
        if value not in valid:
            raise InputError(f"must be one of {', '.join(valid)}", where=f"{option} {value}")
    for option, number in (("--batches", batches), ("--batch-size", batch_size), ("--bins", bins)):
        if number is not None and number < 1:
            raise InputError(f"{number} is not at least 1", where=option)
    from dpmed.config.load import load_config
    from dpmed.workflows.attack.levels import parse_levels

    loaded = load_config(config, overrides or [])
    common: dict[str, Any] = {
        "config": loaded.config,
        "config_name": loaded.name,
        "accountant": accountant,
        "steps": steps,
    }
    if attack == "prior-aware":
        if eps_exp is not None:
            common["epsilons"] = parse_levels(eps_exp, non_private=False)
        _prior_aware(console, loaded, out, {**common, "candidates": candidates, "trials": trials})
        return
    private = loaded.config.privacy is not None
    exponents = eps_exp if eps_exp is not None or not private else "6:18:2"
    common |= {
        "epsilons": parse_levels(exponents, non_private=non_private),
        "batches": batches or 1,
        "weights": weights,
    }
    if attack == "inversion":
        _invert(console, loaded, out, {**common, "batch_size": batch_size or 1}, inversion_steps)
        return
    _blocks(console, loaded, out, {**common, "batch_size": batch_size, "rows": bins, "attack": attack})


def _blocks(console: Console, loaded: "LoadedConfig", out: Path | None, facts: dict[str, Any]) -> None:
    from dpmed.workflows.attack import blocks as workflow

    settings = workflow.ReconstructSettings(**facts)
    workflow.check(settings)
    begun = None if out is None else workflow.open_folder(out, settings)
    _finish(console, workflow.run(settings, begun or _folder(out, loaded), console))


def _invert(console: Console, loaded: "LoadedConfig", out: Path | None, facts: dict[str, Any], iterations: int) -> None:
    from dpmed.attacks.inversion import Descent
    from dpmed.workflows.attack import inversion as workflow

    if iterations < 1:
        raise InputError("must be at least 1", where=f"--inversion-steps {iterations}")
    settings = workflow.InversionSettings(**facts, descent=Descent(iterations=iterations))
    workflow.check(settings)
    _finish(console, workflow.run(settings, _folder(out, loaded), console))


def _prior_aware(console: Console, loaded: "LoadedConfig", out: Path | None, facts: dict[str, Any]) -> None:
    from dpmed.workflows.attack import prior_aware as workflow

    settings = workflow.PriorAwareSettings(**facts)
    workflow.check(settings)
    summary = workflow.run(settings, _folder(out, loaded), console)
    console.table("How often the attacker names the right candidate", *summary.table())
    if summary.not_run is not None:
        console.text(summary.not_run)
    console.result(summary.to_json(), summary.folder)


def _folder(out: Path | None, loaded: "LoadedConfig") -> Path:
    from dpmed.files import new_run_folder

    return new_run_folder(out, command="reconstruct", config_name=loaded.name, time=time_stamp())


def _finish(console: Console, summary: Any) -> None:
    from dpmed.reconstructions.manifest import SENSITIVE

    console.table("Recovered", *summary.table())
    console.text(SENSITIVE)
    console.result(summary.to_json(), summary.folder)
