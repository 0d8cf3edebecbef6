"""Says what is wrong with a config and what to write instead."""

import difflib
import json
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from dpmed.config.keys import keys_at, models_at, tags_at, without_tag
from dpmed.fields import PROBLEMS

# Kinds of errors whose wording does not depend on the key, or for which TOML has its own terms.
_SAME = (
    "int_type", "int_from_float", "int_parsing", "float_type", "float_parsing", "finite_number", "bool_type",
)  # fmt: skip
_LIMITS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
_WANTED = {kind: PROBLEMS[kind] for kind in _SAME} | {
    "bool_parsing": PROBLEMS["bool_type"],
    "string_type": "must be text in quotes",
    "path_type": "must be a path in quotes",
    "model_type": "must be a table of its own",
    "model_attributes_type": "must be a table of its own",
    "dict_type": "must be a table of its own",
    # Only factories have a pattern.
    "string_pattern_mismatch": "must name a function as package.module:function",
}
_FEW_HOMES = 3
_LISTS = ("tuple_type", "list_type")


def explain(entries: Sequence[ErrorDetails], table: dict[str, Any]) -> str:
    """Errors, one clause per key.

    Args:
        entries: of the validation error of the whole config.
        table: the table that was checked.
    """
    clauses: dict[str, list[str]] = {}
    for entry in entries:
        if _only_follows(entry, entries):
            continue
        place, reason = _explain(entry, table)
        reasons = clauses.setdefault(place, [])
        if reason not in reasons:
            reasons.append(reason)
    told = {place: ", or ".join(reasons) for place, reasons in clauses.items()}
    return "; ".join(f"{place}: {reasons}" if place else reasons for place, reasons in told.items())


def _only_follows(entry: Any, entries: Sequence[Any]) -> bool:
    """Whether a list counts as too short only because some of its values, which are told by themselves, are wrong."""
    at = entry["loc"]
    return entry["type"] == "too_short" and any(
        other["loc"][: len(at)] == at and len(other["loc"]) > len(at) for other in entries
    )


def place_of(path: Sequence[int | str]) -> str:
    """A key as written in the file: `[privacy] epsilon`, `[model] width[0]`, or `[data]` alone."""
    *tables, key = path or ("",)
    index = ""
    while isinstance(key, int) and tables:
        index = f"[{key}]{index}"
        *tables, key = tables
    if not tables:
        return f"[{key}]{index}" if path else "the config"
    return f"[{'.'.join(map(str, tables))}] {key}{index}"


def _explain(entry: Any, table: dict[str, Any]) -> tuple[str, str]:
    """The place, with the given value, and the reason."""
    path = without_tag(entry["loc"], table)
    kind = entry["type"]
    if kind == "value_error":
        return place_of(path) if path else "", str(entry["ctx"]["error"])
    if kind == "extra_forbidden":
        hint = _elsewhere(path, table) or _nearest(str(path[-1]), keys_at(path[:-1], table))
        return place_of(path), f"unknown key{hint}"
    if kind == "missing":
        whole = path[:-1] if isinstance(path[-1], int) else path
        return place_of(whole), "is missing" if whole == path else f"has too few values{_such_as(whole, table)}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _name(entry, (*path, "name"), tags_at(path))
    return f"{place_of(path)} = {json.dumps(entry['input'], default=str)}", _reason(entry, path, table)


def _name(entry: Any, path: Sequence[int | str], valid: Sequence[str]) -> tuple[str, str]:
    given = entry.get("ctx", {}).get("tag")
    if given is None:
        return place_of(path), f"is missing; valid: {', '.join(valid)}"
    return f"{place_of(path)} = {given!r}", f"unknown{_guess(str(given), valid)}; valid: {', '.join(valid)}"


def _reason(entry: Any, path: Sequence[int | str], table: dict[str, Any]) -> str:
    kind = entry["type"]
    if kind in _LISTS:
        return f"{PROBLEMS[kind]}{_such_as(path, table) or _list_of(entry['input'], path, table)}"
    if kind == "literal_error" or kind in _LIMITS:
        return PROBLEMS[kind].format(**{name: _plain(value) for name, value in entry["ctx"].items()})
    if kind == "too_long":
        return f"has more than {entry['ctx']['max_length']} values{_such_as(path, table)}"
    if kind == "too_short" and entry["ctx"]["min_length"] == 1:
        return f"must not be empty{_such_as(path, table)}"
    if kind == "too_short":
        return f"has fewer than {entry['ctx']['min_length']} values{_such_as(path, table)}"
    message: str = entry["msg"]
    return _WANTED.get(kind, (message[0].lower() + message[1:]).removeprefix("input "))


def _plain(value: object) -> object:
    return f"{value:g}" if isinstance(value, float) else value


def _such_as(path: Sequence[int | str], table: dict[str, Any]) -> str:
    """An example: the key's own default, if it has one that shows the syntax."""
    for model in models_at(path[:-1], table):
        field = model.model_fields.get(str(path[-1]))
        if field is not None and isinstance(field.default, tuple) and field.default:
            return f", such as {json.dumps(field.default)}"
    return ""


def _list_of(given: object, path: Sequence[int | str], table: dict[str, Any]) -> str:
    """An example where a single value stands for a list of such: that list, if the key takes it."""
    for model in models_at(path[:-1], table):
        field = model.model_fields.get(str(path[-1]))
        if field is None or field.annotation is None:
            continue
        example = json.dumps([given], default=str, ensure_ascii=False)
        try:
            TypeAdapter(field.annotation).validate_json(example, strict=True)
        except ValidationError:
            continue
        return f", such as {example}"
    return ""


def _guess(name: str, valid: Sequence[str]) -> str:
    guess = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f" (did you mean {guess[0]}?)" if guess else ""


def _elsewhere(path: Sequence[int | str], table: dict[str, Any]) -> str:
    """The other tables that have this key, if they are few."""
    homes = [f"[{name}] {path[-1]}" for name in keys_at((), table) if path[-1] in keys_at((name,), table)]
    return f" (did you mean {' or '.join(homes)}?)" if 0 < len(homes) <= _FEW_HOMES and len(path) > 1 else ""


def _nearest(name: str, valid: Sequence[str]) -> str:
    return _guess(name, valid) or (f" (valid: {', '.join(valid)})" if valid else "")
