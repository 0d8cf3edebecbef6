"""What `visualize` reads: the table of matches, the images that it is about, and how these were matched."""

from pathlib import Path

from dpmed.errors import InputError
from dpmed.files import read_json
from dpmed.matching.table import MATCHES, SETTINGS
from dpmed.reconstructions.manifest import MANIFEST_NAME, Manifest


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


def how_matched(table: Path, manifest: Manifest, *, originals: int) -> tuple[str, ...]:
    """What about the matching makes shares other than those of all originals and their nearest reconstructions.

    Args:
        table: the table of matches.
        manifest: of the images.
        originals: how many originals the table has.
    """
    found, known = [], manifest.batches * manifest.batch_size
    if originals < known:
        found.append(
            f"{known - originals} of the {known} originals were left out of the comparison (`dpmed match "
            f"--min-nonzero`, say): all shares are those of the other {originals}."
        )
    beside = table.parent / SETTINGS
    content = read_json(beside) if beside.is_file() else None
    if isinstance(content, dict) and content.get("assignment") == "one-to-one":
        found.append(
            "Each reconstruction was matched with one original at most (one-to-one): an original may have a nearer one "
            "that counts for another, so an attacker may have recovered more than the shares say."
        )
    return tuple(found)
