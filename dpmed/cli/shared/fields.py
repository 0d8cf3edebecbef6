"""Errors name the field at fault; here its name becomes the option that the user typed."""

from collections.abc import Callable, Collection
from typing import Any

import typer
from typer.exceptions import TyperException

from dpmed.errors import DpmedError, InputError


def one_of(*valid: str) -> Callable[[typer.CallbackParam, str | None], str | None]:
    """A callback for an option, which refuses any value but these."""

    def check(param: typer.CallbackParam, value: str | None) -> str | None:
        if value is not None and value not in valid:
            raise InputError(f"{value!r} is not one of {', '.join(valid)}", where=param.name or "")
        return value

    return check


def name_options(error: DpmedError, command: Any) -> None:
    """Replace the fields that an error names by the command's options.

    Args:
        error: its `where` may hold names of fields, separated by commas, each followed by a blank and the value given;
            anything else in it stays as it is.
        command: a command of typer, whose parameters are named after the fields that they set.
    """
    options = {parameter.name: parameter.opts[0] for parameter in getattr(command, "params", [])}
    options = {name: option for name, option in options.items() if option.startswith("--")}
    parts = [part.partition(" ") for part in error.where.split(", ")]
    error.where = ", ".join(f"{options.get(name, name)}{blank}{rest}" for name, blank, rest in parts)


def reword(error: TyperException, *, of_program: Collection[str] = (), command: str = "") -> None:
    """Say in our own words what an option must be, or where it belongs.

    Args:
        error: raised by typer; unchanged unless pydantic caused it, or an option of the program follows the command.
        of_program: the options that come before the command, such as `--quiet`.
        command: the name of the command.
    """
    cause: Any = error.__cause__
    if type(cause).__name__ == "ValidationError":
        from dpmed.fields import explain

        error.message = explain(cause)[1]
    unknown: Any = error
    # Only unknown options have possibilities; a wrong use of a known one does not.
    if hasattr(unknown, "possibilities") and unknown.option_name in of_program:
        option = unknown.option_name
        unknown.message = f"{option} comes before the command: dpmed {option} {command} …"
        unknown.possibilities = None
