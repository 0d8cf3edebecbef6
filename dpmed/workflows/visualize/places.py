"""Where to find what `visualize` reads: the table of matches, and the images that it is about."""

from pathlib import Path

from dpmed.errors import InputError
from dpmed.files import read_json
from dpmed.matching.table import MATCHES, SETTINGS
from dpmed.reconstructions.manifest import MANIFEST_NAME


def matches_in(folder: Path) -> Path:
    """The table of matches in a folder that was given instead of it.

    Raises:
        InputError: there is none.
    """
    if (folder / MATCHES).is_file():
        return folder / MATCHES
    remedy = "Give the folder or the table that `dpmed match` wrote."
    if (folder / MANIFEST_NAME).is_file():
        remedy = f"These are reconstructions, not yet matched: run `dpmed match {folder}` first."
    raise InputError(f"holds no {MATCHES}", where=str(folder), remedy=remedy)


def reconstructions_of(table: Path) -> Path:
    """The folder of images that a table of matches is about, according to the file beside it.

    Raises:
        InputError: nothing beside the table names the images.
    """
    beside = table.parent / SETTINGS
    if beside.is_file():
        content = read_json(beside)
        named = content.get("reconstructions") if isinstance(content, dict) else None
        if not isinstance(named, str):
            raise InputError("reconstructions is missing", where=str(beside))
        return (table.parent / named).resolve()
    if (table.parent / MANIFEST_NAME).is_file():
        return table.parent
    remedy = "Name the folder that `dpmed reconstruct` wrote: --reconstructions DIR."
    raise InputError(f"there is no {SETTINGS} beside it to name the images", where=str(table), remedy=remedy)
