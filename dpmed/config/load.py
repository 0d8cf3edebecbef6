"""Turns a file or the name of a shipped config into a checked `Config`, or into one message that says what to fix."""

import difflib
import json
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dpmed.config.explain import explain, place_of
from dpmed.config.keys import keys_at, tags_at, without_tag
from dpmed.config.schema import Config
from dpmed.config.shipped import shipped_folder, shipped_names
from dpmed.errors import InputError

_MAX_CONFIG_BYTES = 1 << 20
# These errors mean that a value on the command line looks like a number where the schema expects text.
_WANTS_TEXT = {"string_type", "path_type", "literal_error", "union_tag_invalid"}


@dataclass(frozen=True)
class LoadedConfig:
    """A checked config and where it came from.

    Attributes:
        config: the checked config.
        name: the file's name without extension, for run folders and titles.
        source: its name in messages: a path, or `shipped config NAME`.
        overridden: keys given by `--set`, such as `privacy.epsilon`.
    """

    config: Config
    name: str
    source: str
    overridden: tuple[str, ...] = ()

    def place_of(self, field: str) -> str:
        """Where a field of the config, such as `privacy.epsilon`, was given; any other text is returned unchanged.

        Text after the field's name and a space, such as ` = 4`, is kept.
        """
        key, blank, rest = field.partition(" ")
        path = key.split(".")
        if path[0] not in Config.model_fields or any(name not in keys_at(path[:n], {}) for n, name in enumerate(path)):
            return field
        was_set = any(key == given or key.startswith(f"{given}.") for given in self.overridden)
        return f"{'--set' if was_set else self.source}: {place_of(path)}{blank}{rest}"

    @contextmanager
    def locating(self) -> Iterator[None]:
        """A context in which errors about a field of the config say where that field was given."""
        try:
            yield
        except InputError as error:
            error.where = ", ".join(map(self.place_of, error.where.split(", ")))
            raise


def load_config(name_or_path: str, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read and check a config.

    Args:
        name_or_path: a path to a TOML file, or the name of a shipped config. A file of that name takes precedence.
        overrides: `KEY=VALUE` each, such as `privacy.epsilon=4`; the value is written as in TOML, quotes around text
            are optional, and an empty value removes the key.

    Raises:
        InputError: the file is missing, not TOML or not valid; the message names file, key, reason and remedy.
    """
    path, source = _locate(name_or_path)
    table = _read_toml(path, source)
    parsed = [_parse_override(override) for override in overrides]
    for keys, text in parsed:
        _set(table, keys, _toml_value(text))
    try:
        config = _validate(table)
    except ValidationError as error:
        config = _validate_with_text(table, parsed, error, source)
    overridden = tuple(".".join(keys) for keys, _ in parsed)
    return LoadedConfig(config=config, name=path.stem, source=source, overridden=overridden)


def config_from_toml(text: str, source: str) -> Config:
    """Check a config given as text, such as the one stored in a run folder.

    Raises:
        InputError: as `load_config`.
    """
    try:
        table = tomllib.loads(text)
        return _validate(table)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"is not valid TOML: {error}", where=source) from error
    except ValidationError as error:
        raise InputError(explain(error, table), where=source) from error


def config_to_toml(config: Config) -> str:
    """The resolved config as TOML, including all defaults: enough to repeat the run."""
    import tomli_w

    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def _locate(name_or_path: str) -> tuple[Path, str]:
    path = Path(name_or_path)
    if path.is_file():
        return path, str(path)
    shipped = shipped_folder() / f"{name_or_path}.toml"
    if "/" not in name_or_path and shipped.is_file():
        return shipped, f"shipped config {name_or_path}"
    if path.is_dir():
        remedy = f"To continue it: dpmed train --resume {path}; to start afresh with its config: {path}/config.toml."
        is_run = (path / "config.toml").is_file()
        raise InputError(
            "is a run folder, not a config" if is_run else "is a folder, not a config",
            where=name_or_path,
            remedy=remedy if is_run else "",
        )
    names = shipped_names()
    if path.suffix == ".toml" or "/" in name_or_path:
        raise InputError("no such config file", where=name_or_path, remedy=f"Shipped ones: {', '.join(names)}.")
    guess = difflib.get_close_matches(name_or_path, names, n=1)
    hint = f"Did you mean {guess[0]}? " if guess else ""
    raise InputError(
        "no such file and no shipped config of that name",
        where=name_or_path,
        remedy=f"{hint}Shipped ones: {', '.join(names)}.",
    )


def _read_toml(path: Path, source: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise InputError("is larger than 1 MiB, too large for a config", where=source)
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"is not valid TOML: {error}", where=source) from error
    except UnicodeDecodeError as error:
        raise InputError(f"is not a text file in UTF-8 ({error.reason})", where=source) from error
    except RecursionError as error:
        raise InputError("is nested too deeply", where=source) from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=source) from error


def _parse_override(override: str) -> tuple[list[str], str]:
    key, equals, value = override.partition("=")
    keys = [part.strip() for part in key.split(".")]
    if not equals or not all(keys):
        remedy = "Write it like --set privacy.epsilon=4."
        raise InputError(f"{override!r} is not KEY=VALUE", where="--set", remedy=remedy)
    return keys, value.strip()


def _toml_value(text: str) -> Any:
    if text == "":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text


def _set(table: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for number, key in enumerate(keys[:-1], 1):
        if isinstance(table.get(key), str) and tags_at(keys[:number]):
            table[key] = {"name": table[key]}  # a name that stands for its table
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise InputError(f"{key} is a value, not a table", where=f"--set {'.'.join(keys)}")
    if value is None:
        table.pop(keys[-1], None)
    else:
        table[keys[-1]] = value


def _validate(table: dict[str, Any]) -> Config:
    # When it validates JSON, pydantic's strict mode accepts arrays as tuples, whole numbers as floats and text as
    # paths, and coerces nothing else.
    return Config.model_validate_json(json.dumps(table, default=str))


def _validate_with_text(
    table: dict[str, Any], parsed: Iterable[tuple[list[str], str]], error: ValidationError, source: str
) -> Config:
    wants_text = {_key(entry["loc"], table) for entry in error.errors() if entry["type"] in _WANTS_TEXT}
    retry = [(keys, text) for keys, text in parsed if ".".join(keys) in wants_text and text]
    for keys, text in retry:
        _set(table, keys, text)
    try:
        return _validate(table)
    except ValidationError as remaining:
        wrong = {_key(entry["loc"], table) for entry in remaining.errors()}
    for keys, text in retry:
        if ".".join(keys) in wrong:
            _set(table, keys, _toml_value(text))  # as it was typed: 0 rather than "0"
    try:
        return _validate(table)
    except ValidationError as remaining:
        given = [".".join(keys) for keys, _ in parsed]
        places = [_key(entry["loc"], table) for entry in remaining.errors()]
        if all(any(f"{place}.".startswith(f"{key}.") for key in given) for place in places):
            source = "--set"
        raise InputError(explain(remaining, table), where=source) from remaining


def _key(location: Sequence[int | str], table: dict[str, Any]) -> str:
    path = without_tag(location, table)
    last = path[-1] if path else ""
    is_table = len(path) == 1
    return f"{last}.name" if is_table else ".".join(map(str, path))
