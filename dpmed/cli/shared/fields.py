"""Errors name the field that is wrong; here it becomes the option that the user typed."""

from collections.abc import Callable
from typing import Any

import typer
from typer.exceptions import TyperException

from dpmed.errors import DpmedError, InputError


def one_of(*valid: str) -> Callable[[typer.CallbackParam, str | None], str | None]:
    """A callback for options: refuses a value that is not one of these."""

    def check(param: typer.CallbackParam, value: str | None) -> str | None:
        if value is not None and value not in valid:
            raise InputError(f"{value!r} is not one of {', '.join(valid)}", where=param.name or "")
        return value

    return check


def name_options(error: DpmedError, command: Any) -> None:
    """Put the command's options in place of the fields that an error is about.

    Args:
        error: whose `where` may hold names of fields, separated by commas, each with what was given behind a blank;
            all else in it is left as it is.
        command: of typer; a parameter's name is that of the field that it sets.
    """
    options = {parameter.name: parameter.opts[0] for parameter in getattr(command, "params", [])}
    options = {name: option for name, option in options.items() if option.startswith("--")}
    parts = [part.partition(" ") for part in error.where.split(", ")]
    error.where = ", ".join(f"{options.get(name, name)}{blank}{rest}" for name, blank, rest in parts)


def reword(error: TyperException) -> None:
    """Say what an option must be in our own words, where typer passes on those of the library that it checks by.

    Args:
        error: of typer; one that pydantic has not caused is left as it is.
    """
    cause: Any = error.__cause__
    if type(cause).__name__ == "ValidationError":
        from dpmed.fields import explain

        error.message = explain(cause)[1]
