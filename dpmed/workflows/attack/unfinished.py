"""What an attack has done so far, in `unfinished.json`: an interrupted attack continues from there."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dpmed.attacks.base import Facts
from dpmed.errors import InputError
from dpmed.fields import read_fields
from dpmed.files import new_run_folder, remove_if_possible, write_json
from dpmed.reconstructions.manifest import UNFINISHED_NAME

_MOST_BYTES = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """The content of the file.

    Attributes:
        digest: of the settings, so that only the same attack is continued.
        finished: for each `LEVEL/BATCH`, how many images were recovered and what else was found.
    """

    digest: str
    finished: dict[str, dict[str, Any]] = field(default_factory=dict)

    def has(self, level: str, batch: int) -> bool:
        """Whether a batch at a level is done."""
        return f"{level}/{batch}" in self.finished

    def add(self, folder: Path, level: str, batch: int, *, facts: Facts) -> None:
        """Record that a batch at a level is done, with all its images on disk."""
        self.finished[f"{level}/{batch}"] = dict(facts)
        self.write(folder)

    def write(self, folder: Path) -> None:
        """Write the file atomically."""
        write_json(folder / UNFINISHED_NAME, asdict(self))

    def of_level(self, level: str, batches: int) -> list[dict[str, Any]]:
        """What was found in each batch of a finished level."""
        return [self.finished[f"{level}/{batch}"] for batch in range(batches)]


_UNFINISHED = TypeAdapter(Unfinished)


def read_unfinished(folder: Path, digest: str) -> Unfinished:
    """What an interrupted attack has done in a folder; nothing if the folder is new.

    Raises:
        InputError: the file is damaged, or belongs to an attack with other settings.
    """
    if not (folder / UNFINISHED_NAME).is_file():
        return Unfinished(digest=digest)
    found = read_fields(folder / UNFINISHED_NAME, _UNFINISHED, most_bytes=_MOST_BYTES)
    if found.digest != digest:
        remedy = "Repeat that call to continue it, or choose another folder."
        raise InputError("holds an interrupted attack with other settings", where=str(folder), remedy=remedy)
    return found


def open_folder(out: Path | None, *, digest: str, config_name: str) -> Path:
    """The folder to write to: that of the same attack, interrupted, or a new one.

    Args:
        out: the folder that the user asked for; None for a new one under `runs/`.
        digest: the digest of the settings.
        config_name: for the new folder's name.

    Raises:
        InputError: the folder holds something else, such as an attack that has finished or had other settings.
    """
    if out is not None and (out / UNFINISHED_NAME).is_file():
        read_unfinished(out, digest)
        # Remains of files that were being written when the attack was interrupted.
        for rest in out.rglob(".*.tmp"):
            remove_if_possible(rest)
        return out
    return new_run_folder(out, command="reconstruct", config_name=config_name)
