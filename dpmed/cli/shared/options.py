"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from dpmed.cli.shared.console import Console


def complete_config(incomplete: str) -> list[str]:
    """Shipped configs whose name begins with what was typed."""
    from dpmed.config.shipped import shipped_names

    return [name for name in shipped_names() if name.startswith(incomplete)]


def complete_override(incomplete: str) -> list[str]:
    """Keys of the config that begin with what was typed; after `=`, the values of a key that has only a few."""
    from dpmed.config.keys import keys_at, values_at

    typed, equals, begun = incomplete.partition("=")
    *tables, key = typed.split(".")
    if equals:
        return [f"{typed}={value}" for value in values_at((*tables, key)) if value.startswith(begun)]
    place = ".".join(tables) + "." if tables else ""
    names = [name for name in keys_at(tables, {}) if name.startswith(key)]
    return [f"{place}{name}{'.' if keys_at((*tables, name), {}) else '='}" for name in names]


Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the config, such as data.root=DIR.",
        autocompletion=complete_override,
    ),
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder to write to; default: a new one in runs/.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object and nothing else.")]


def console_of(ctx: typer.Context, *, json: bool = False) -> Console:
    """The console of this call."""
    console = ctx.obj if isinstance(ctx.obj, Console) else Console()
    console.json = json
    return console
