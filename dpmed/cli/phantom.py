"""`dpmed phantom`."""

from typing import Annotated

import typer

from dpmed.cli.shared.options import Json, Out, console_of


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(rich_help_panel="Data")(phantom)


def _complete(incomplete: str) -> list[str]:
    from dpmed.data.layouts import phantoms

    return [name for name in phantoms() if name.startswith(incomplete)]


def phantom(
    ctx: typer.Context,
    layout: Annotated[
        str,
        typer.Argument(
            metavar="LAYOUT",
            help="Such as ham10000, radimagenet, msd-liver, cifar10, medmnist, folder or table; an unknown name lists "
            "them all.",
            autocompletion=_complete,
        ),
    ],
    out: Out = None,
    num: Annotated[int, typer.Option("--num", metavar="N", help="Number of samples.")] = 200,
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Determines every file, byte for byte.")] = 0,
    json: Json = False,
) -> None:
    """Write a synthetic data set in the exact layout of a real one, to try any config without the real data."""
    console = console_of(ctx, json=json)
    from dpmed.data.layouts import check_request
    from dpmed.files import new_run_folder
    from dpmed.workflows import phantom as workflow

    check_request(layout, num)
    folder = new_run_folder(out, command="phantom", config_name=layout)
    summary = workflow.run(layout, folder, console, num=num, seed=seed)
    console.facts("Phantom", summary.describe())
    console.result(summary.to_json(), summary.folder)
