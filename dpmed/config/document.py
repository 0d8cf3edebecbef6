"""docs/config.md and the JSON schema for editors, generated from the schema."""

import json
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, JsonValue
from pydantic_core import PydanticUndefined

from dpmed.config.keys import models_in, tag_of
from dpmed.config.schema import Config

_HEADER = """# The configuration

Generated from `dpmed/config/` by `make docs`; do not edit by hand. A config is a TOML file; every key can be
overridden on the command line with `--set table.key=value`, and an empty value removes the key. Paths are
relative to the folder that a command is run in; `~` is your home folder. For completion and checks in an editor, point
it to `docs/config.schema.json`.
"""


def config_page() -> str:
    """The Markdown page that describes every table and key."""
    parts = [_HEADER]
    for table, field in Config.model_fields.items():
        parts.append(f"\n## {_first_line(field.description)}\n")
        models = list(models_in(field.annotation))
        for model in models:
            tag = tag_of(model)
            if tag is not None and len(models) > 1:
                parts.append(f'\n### [{table}] name = "{tag}"\n')
            parts.append(_describe(model))
    return "\n".join(parts).rstrip("\n") + "\n"


def json_schema() -> str:
    """The JSON schema of a config, as text."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def _describe(model: type[BaseModel]) -> str:
    lines = [_paragraph(model.__doc__), "", "| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    nested = []
    for name, field in model.model_fields.items():
        inner = [member for member in models_in(field.annotation) if member is not model]
        nested += [member for member in inner if member not in nested]
        kind = "table" if inner else type_name(field.annotation, field.metadata)
        cells = [f"`{name}`", kind, _default(field), _paragraph(field.description)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += [f"\n{_describe(member)}" for member in nested]
    return "\n".join(lines) + "\n"


def type_name(annotation: Any, metadata: Any = ()) -> str:
    """How a type is written in the documentation, such as `number > 0` or `"pld" or "rdp"`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f'`"{value}"`' if isinstance(value, str) else f"`{value}`" for value in arguments)
    if origin is tuple:
        return f"list of {type_name(arguments[0])}"
    if origin is dict:
        return "table" if arguments[1] is JsonValue else f"table of {type_name(arguments[1])}"
    if hasattr(annotation, "__metadata__"):
        return type_name(arguments[0], annotation.__metadata__)
    if arguments:
        return " or ".join(type_name(argument, metadata) for argument in arguments if argument is not type(None))
    names = {"int": "whole number", "float": "number", "str": "text", "bool": "true or false", "Path": "path"}
    name = names.get(getattr(annotation, "__name__", ""), str(annotation))
    limits = _limits(metadata) if name in {"whole number", "number"} else []
    return " ".join([name, *([", ".join(limits)] if limits else [])])


def _limits(metadata: Any) -> list[str]:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    limits = []
    for entry in metadata:
        for inner in getattr(entry, "metadata", [entry]):
            limits += [
                f"{sign} {value:g}" for key, sign in signs.items() if (value := getattr(inner, key, None)) is not None
            ]
    return limits


def _default(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "" if field.default_factory else "required"
    if field.default is None:
        return ""
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{json.dumps(value, default=str)}`"


def _paragraph(text: str | None) -> str:
    return " ".join((text or "").split())


def _first_line(text: str | None) -> str:
    return _paragraph(text).rstrip(".")


def write_pages(folder: Path) -> list[Path]:
    """Write `config.md` and `config.schema.json` to `folder`."""
    pages = {folder / "config.md": config_page(), folder / "config.schema.json": json_schema()}
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    return list(pages)


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
