"""docs/commands.md, generated from the command line itself."""

import re
import sys
from pathlib import Path
from typing import Any, get_args, get_origin

import typer

_HEADER = """# Commands

Generated from `dpmed/cli/` by `make docs`; do not edit by hand. `dpmed COMMAND --help` says the same.

CONFIG is a TOML file ([every key](config.md)) or the name of a shipped one, such as `quickstart`; RUN is a run folder;
MODEL is a run folder or a bundle that `dpmed export` wrote. Exit codes: 0 (done), 1 (failed while running), 2 (wrong
usage, config or input). The last line on standard output names the folder or file that was written.
"""
# Options and settings in a sentence, which become code: otherwise their dashes could break at the end of a line.
_NAMED = re.compile(r"(?<![\w`-])(?:--[a-z][a-z-]*(?: [a-z_.]+=\w+)?|[a-z]+\.[a-z_]+=\w+)")
_NAMES = {"int": "N", "float": "X", "str": "TEXT", "Path": "PATH"}


def commands_page(app: typer.Typer) -> str:
    """The Markdown page that describes every command, its arguments and options."""
    group: Any = typer.main.get_command(app)
    parts = [_HEADER, "## dpmed\n", _sentence(group.help), "", "```\ndpmed [OPTIONS] COMMAND …\n```", ""]
    parts += [*_table("option", [one for one in group.params if "completion" not in one.name])]
    for name, command in group.commands.items():
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        options = [one for one in command.params if one.param_type_name == "option"]
        parts += [f"\n## dpmed {name}\n", _sentence(command.help), ""]
        parts += [_usage(f"dpmed {name}", *map(_place, arguments)), ""]
        if arguments:
            parts += [*_table("argument", arguments), ""]
        parts += _table("option", options)
    return "\n".join(parts) + "\n"


def _usage(command: str, *places: str) -> str:
    return f"```\n{' '.join([command, *places, '[OPTIONS]'])}\n```"


def _place(argument: Any) -> str:
    return _value(argument) if argument.required else f"[{_value(argument)}]"


def _table(title: str, parameters: list[Any]) -> list[str]:
    rows = [f"| {_cell(_spelling(one))} | {_cell(_meaning(one))} |" for one in parameters]
    return [f"| {title} | meaning |", "| --- | --- |", *rows]


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_value(parameter)}`"
    names = [*parameter.opts, *parameter.secondary_opts]
    value = "" if parameter.is_flag else f" {_value(parameter)}"
    return ", ".join(_code(f"{name}{value}") for name in names)


def _code(text: str) -> str:
    # A bar in a cell, written in the one way that all Markdown renderers understand.
    return f"<code>{text.replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


def _value(parameter: Any) -> str:
    """The placeholder for the value: the name that the command gives it, or its type."""
    if parameter.metavar:
        return str(parameter.metavar).replace("...", "…")
    if parameter.param_type_name == "argument":
        return str(parameter.name).upper()
    kind = parameter.type_descriptor.annotation
    kind = get_args(kind)[0] if get_origin(kind) is list else kind
    return _NAMES[kind.__name__]


def _meaning(parameter: Any) -> str:
    text = _NAMED.sub(r"`\g<0>`", _sentence(parameter.help))
    if parameter.param_type_name == "option" and parameter.multiple and "repeatable" not in text:
        text += " Repeatable."
    if parameter.default is None or parameter.default is False or "efault" in text:
        return text
    return f"{text} Default: `{parameter.opts[0] if parameter.default is True else parameter.default}`."


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def write_page(folder: Path) -> Path:
    """Write `commands.md` to `folder`."""
    from dpmed.cli.app import app

    path = folder / "commands.md"
    path.write_text(commands_page(app), encoding="utf-8")
    return path


if __name__ == "__main__":
    write_page(Path(sys.argv[1]))
