"""The keys and names that the schema allows at each place, for messages and the generated documentation."""

import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from dpmed.config.schema import Config

Path = Sequence[int | str]


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every table model that an annotation allows: the annotation itself, or the members of a union."""
    origin = get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif origin is Annotated:
        yield from models_in(get_args(annotation)[0])
    elif origin in (Union, types.UnionType, tuple, list):
        for argument in get_args(annotation):
            yield from models_in(argument)


def tag_of(model: type[BaseModel]) -> str | None:
    """The value of `name` that selects this member of a union, or None if it is not one."""
    field = model.model_fields.get("name")
    if field is None or get_origin(field.annotation) is not Literal:
        return None
    return str(get_args(field.annotation)[0])


def models_at(path: Path, table: Any) -> list[type[BaseModel]]:
    """The models at `path` (without tags); for a union with a known tag, only that member."""
    models: list[type[BaseModel]] = [Config]
    for key in path:
        table = table.get(key) if isinstance(table, dict) else None
        if isinstance(key, int):
            continue
        found = [
            member
            for model in models
            if key in model.model_fields
            for member in models_in(model.model_fields[key].annotation)
        ]
        tag = table.get("name") if isinstance(table, dict) else None
        models = [model for model in found if tag is not None and tag_of(model) == tag] or found
    return models


def keys_at(path: Path, table: Any) -> list[str]:
    """Valid keys of the table at `path`, sorted."""
    return sorted({name for model in models_at(path, table) for name in model.model_fields})


def tags_at(path: Path) -> list[str]:
    """Valid values of `name` of the union at `path`, sorted."""
    return sorted(tag for model in models_at(path, None) if (tag := tag_of(model)) is not None)


def values_at(path: Path) -> list[str]:
    """The values that a key may take, if they can be listed: names of a union, choices, true and false."""
    *table, key = path
    found = set(tags_at(table)) if key == "name" else set()
    found.update(tags_at(path))
    for model in models_at(table, {}):
        if key in model.model_fields:
            found.update(_choices(model.model_fields[str(key)].annotation))
    return sorted(found)


def _choices(annotation: Any) -> Iterator[str]:
    origin = get_origin(annotation)
    if annotation is bool:
        yield from ("false", "true")
    elif origin is Literal:
        yield from (str(value).lower() if isinstance(value, bool) else str(value) for value in get_args(annotation))
    elif origin is Annotated:
        yield from _choices(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for argument in get_args(annotation):
            yield from _choices(argument)


def without_tag(location: Path, table: Any) -> tuple[int | str, ...]:
    """An error's location from pydantic, without the union tags and type names that it inserts between the keys."""
    path: list[int | str] = []
    here, entered = table, False
    for part in location:
        # A table chosen by name is followed by that name, even if the table also has a key of that name.
        chosen = here.get("name") if isinstance(here, dict) else here
        if entered and part == chosen and tags_at(path):
            entered = False
            continue
        known = isinstance(part, int) or part in keys_at(path, table) or (isinstance(here, dict) and part in here)
        if not known and path and not isinstance(here, dict):
            continue
        path.append(part)
        entered = True
        if isinstance(here, dict):
            here = here.get(str(part))
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        else:
            here = None
    return tuple(path)
