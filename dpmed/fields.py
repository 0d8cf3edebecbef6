"""Fields from untrusted files, checked by pydantic: size limits before reading, and messages that name the field."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from dpmed.errors import InputError

T = TypeVar("T")

_SHOWN = 80
# Keyed by pydantic's kinds of errors, https://docs.pydantic.dev/latest/errors/validation_errors, and worded like our
# other messages; pydantic's own say "Input should be a valid integer".
PROBLEMS = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "unexpected_keyword_argument": "is not a known field",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "dataclass_type": "must be an object",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "value_error": "{error}",
}


def read_fields(path: Path, adapter: TypeAdapter[T], *, most_bytes: int) -> T:
    """The content of a JSON file, after checking every field.

    Args:
        path: the file.
        adapter: the required content, validated in pydantic's strict mode.
        most_bytes: larger files are refused unread.

    Raises:
        InputError: the file is missing, unreadable or too large, or a field is invalid.
    """
    where = str(path)
    try:
        with path.open("rb") as file:
            # One byte more than allowed reveals a file that is too large, even one that is growing.
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=where) from error
    if len(content) > most_bytes:
        raise InputError(f"is larger than {most_bytes} bytes, which no such file is", where=where)
    try:
        return adapter.validate_json(content)
    except ValidationError as error:
        field, problem = explain(error)
        raise InputError(f"{field}: {problem}" if field else problem, where=where) from error


def explain(error: ValidationError) -> tuple[str, str]:
    """The field of the first problem, such as `levels[1].counts`, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    field = ""
    for part in first["loc"]:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else str(part)
    known = PROBLEMS.get(first["type"])
    details: Mapping[str, Any] = first.get("ctx", {})
    problem = known.format(**details) if known else first["msg"][0].lower() + first["msg"][1:]
    if first["type"] in {"missing", "extra_forbidden", "unexpected_keyword_argument", "value_error", "json_invalid"}:
        return field, problem
    return field, f"{problem} (got {_shown(first['input'])})"


def _shown(value: object) -> str:
    try:
        return f"{value!r:.{_SHOWN}}"
    except ValueError:  # Python does not print integers of more than 4300 digits.
        return "a number of thousands of digits"
