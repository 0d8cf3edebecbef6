"""The user's code that a run began with, and that a resume must use unchanged.

A checkpoint's weights, the split and the ledger's text belong to one version of the code. If another finished the
training, the result would belong to neither, and the ledger would name code that did not run.
"""

from pathlib import Path

from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.factories import load_factory
from dpmed.files import read_json, write_json

CODE_FILE = "code.json"


def digests_of_code(config: Config) -> dict[str, dict[str, str]]:
    """For each key that names a factory, its name and the SHA-256 of its module's source file.

    Raises:
        InputError: a factory no longer exists.
    """
    found = {}
    for key, table in (("data", config.data), ("model", config.model), ("loss", config.loss)):
        if table.name == "custom":
            loaded = load_factory(table.factory, where=f"{key}.factory")
            found[f"{key}.factory"] = {"name": loaded.name, "sha256": loaded.digest}
    return found


def write_code(folder: Path, config: Config) -> None:
    """Record the code that the run begins with; nothing for configs that name none."""
    found = digests_of_code(config)
    if found:
        write_json(folder / CODE_FILE, found)


def check_code(folder: Path, config: Config) -> None:
    """Compare the code with what the run began with.

    Raises:
        InputError: a source has changed since.
    """
    found = digests_of_code(config)
    if not found:
        return
    before = read_json(folder / CODE_FILE)
    for key, now in found.items():
        if not isinstance(before, dict) or before.get(key) != now:
            raise InputError(
                f"the source of {now['name']} has changed since the run in {folder} began (SHA-256 {now['sha256']} "
                f"is not what {CODE_FILE} names): the rest of the training would use another network, loss or data set",
                where=key,
                remedy="Restore the module as it was, or start a new run.",
            )
