"""Turns a file or the name of a shipped config into a checked `Config`, or into one message that says what to fix."""

import copy
import difflib
import json
import re
import tomllib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from dpmed.config.explain import explain, place_of
from dpmed.config.keys import keys_at, models_at, tags_at, without_tag
from dpmed.config.schema import Config
from dpmed.config.shipped import shipped_folder, shipped_names
from dpmed.errors import InputError
from dpmed.files import CONFIG_FILE

_MAX_CONFIG_BYTES = 1 << 20
# A kind of error, and the key that it concerns.
_Fault = tuple[str, tuple[int | str, ...]]


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


@dataclass(frozen=True)
class _Override:
    """One key that was set on the command line.

    Attributes:
        keys: its parts, such as `("privacy", "epsilon")`.
        text: the value as it was typed; empty if the key is removed.
    """

    keys: tuple[str, ...]
    text: str

    @property
    def key(self) -> str:
        """The key as it was typed."""
        return ".".join(self.keys)

    @property
    def option(self) -> str:
        """What was typed."""
        return f"--set {self.key}={self.text}"


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
    file = _read_toml(path, source)
    parsed = [_parse_override(override) for override in overrides]
    table = _with_overrides(file, parsed)
    try:
        config = _validate(table)
    except ValidationError as error:
        raise _refused(error, table, parsed, file, source) from error
    return LoadedConfig(config=config, name=path.stem, source=source, overridden=tuple(one.key for one in parsed))


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
        raise InputError(explain(error.errors(), table), where=source) from error


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
        is_run = (path / CONFIG_FILE).is_file()
        raise InputError(
            "is a run folder, not a config" if is_run else "is a folder, not a config",
            where=name_or_path,
            remedy=f"Its config is {path / CONFIG_FILE}; `dpmed train --resume {path}` continues the run."
            if is_run
            else "A config is a TOML file; a folder of images is named in one, as data.root.",
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


def _parse_override(override: str) -> _Override:
    """Split `KEY=VALUE`.

    Raises:
        InputError: it has another form, or a name that no config can hold.
    """
    key, equals, value = override.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    if not equals or not all(keys):
        remedy = "Write it like --set privacy.epsilon=4."
        raise InputError(f"{override!r} is not KEY=VALUE", where="--set", remedy=remedy)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        remedy = "Rename the file or folder, or make a link to it with another name."
        raise InputError(f"{override!r} is not UTF-8", where="--set", remedy=remedy) from error
    return _Override(keys, value.strip())


def _with_overrides(table: dict[str, Any], overrides: Sequence[_Override]) -> dict[str, Any]:
    """A config's table with other values; the given one is left as it is.

    A value is what it is in TOML. What looks like a number is text all the same where text is wanted.

    Raises:
        InputError: a key lies in a value that is no table.
    """
    changed = copy.deepcopy(table)
    for one in overrides:
        _set(changed, one, _toml_value(one.text))
    # Only now is it known which tables the values are in.
    for one in overrides:
        typed = _toml_value(one.text)
        if not isinstance(typed, str | None) and _get(changed, one.keys) == typed and _is_text(changed, one, typed):
            _set(changed, one, one.text)
    return changed


def _fault_of(entry: ErrorDetails, table: dict[str, Any]) -> _Fault:
    """What an error is about, in whatever table that key may be.

    Args:
        entry: the error.
        table: the table that was checked.
    """
    return entry["type"], without_tag(entry["loc"], table)


def _source_of(
    entry: ErrorDetails, table: dict[str, Any], overrides: Sequence[_Override], of_file: Collection[_Fault]
) -> str:
    """What was typed on the command line to cause an error, or `--set` where its place says that; empty for the file.

    Args:
        entry: the error.
        table: the table that was checked.
        overrides: what was set in it.
        of_file: what is wrong with the file without them.
    """
    if not overrides:
        return ""
    kind, place = _fault_of(entry, table)
    told = (*place, "name") if kind.startswith("union_tag") else place
    if any(told[: len(one.keys)] == one.keys for one in overrides):
        return "--set"
    if kind == "value_error":
        # Such rules are checked last: in a file with other errors they may have been broken all along.
        mentioned = [one.option for one in overrides if re.search(rf"\b{re.escape(one.key)}\b", entry["msg"])]
        return "" if of_file else ", ".join(dict.fromkeys(mentioned)) or "--set"
    if (kind, place) in of_file:
        return ""
    for one in reversed(overrides):
        # A table of another kind than the file's has other keys; and a table may exist through the command line alone.
        renamed = one.keys[-1] == "name" and place[:-1] == one.keys[:-1] and kind in ("missing", "extra_forbidden")
        if renamed or (place and one.keys[: len(place)] == place):
            return one.option
    return ""


def _toml_value(text: str) -> Any:
    if text == "":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text


def _set(table: dict[str, Any], override: _Override, value: Any) -> None:
    keys = override.keys
    for number, key in enumerate(keys[:-1], 1):
        if isinstance(table.get(key), str) and tags_at(keys[:number]):
            table[key] = {"name": table[key]}  # a name that stands for its table
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise InputError(f"{key} is a value, not a table", where=f"--set {override.key}")
    if value is None:
        table.pop(keys[-1], None)
    else:
        table[keys[-1]] = value


def _get(table: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def _is_text(table: dict[str, Any], override: _Override, typed: Any) -> bool:
    """Whether a key takes what was typed as text and in no other way."""
    *path, key = override.keys
    found = [model.model_fields[key] for model in models_at(path, table) if key in model.model_fields]
    adapters = [TypeAdapter[Any](field.annotation) for field in found if field.annotation is not None]
    return any(_takes(one, override.text) for one in adapters) and not any(_takes(one, typed) for one in adapters)


def _takes(adapter: TypeAdapter[Any], value: Any) -> bool:
    try:
        adapter.validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError:
        return False
    return True


def _validate(table: dict[str, Any]) -> Config:
    # When it validates JSON, pydantic's strict mode accepts arrays as tuples, whole numbers as floats and text as
    # paths, and coerces nothing else.
    return Config.model_validate_json(json.dumps(table, default=str))


def _refused(
    error: ValidationError, table: dict[str, Any], overrides: Sequence[_Override], file: dict[str, Any], source: str
) -> InputError:
    """All errors, each under the name of where it came from."""
    of_file = _faults(file) if overrides else set()
    by_source: dict[str, list[ErrorDetails]] = {}
    for entry in error.errors():
        by_source.setdefault(_source_of(entry, table, overrides, of_file) or source, []).append(entry)
    (where, first), *others = [(name, explain(entries, table)) for name, entries in by_source.items()]
    # Keys of the file that a table of another name does not have.
    left = [
        ".".join(map(str, _fault_of(entry, table)[1]))
        for name, entries in by_source.items()
        for entry in entries
        if name.startswith("--set ") and entry["type"] == "extra_forbidden"
    ]
    remedy = f"An empty value removes a key: {' '.join(f'--set {key}=' for key in left)}" if left else ""
    problem = "; ".join([first, *(f"{name}: {problem}" for name, problem in others)])
    return InputError(problem, where=where, remedy=remedy)


def _faults(table: dict[str, Any]) -> set[_Fault]:
    try:
        _validate(table)
    except ValidationError as error:
        return {_fault_of(entry, table) for entry in error.errors()}
    return set()
