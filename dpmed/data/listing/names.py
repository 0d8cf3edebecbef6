"""What a file below a root may be called, judged before the disk is asked."""

from pathlib import Path

from dpmed.errors import InputError

# What Linux allows a path and one of its parts.
_LONGEST_PATH, _LONGEST_NAME = 4000, 255


def check_name(name: str, root: Path, *, source: str) -> None:
    """Check a name relative to a root; it may still be a link.

    Args:
        name: as in a table or folder listing.
        root: the folder below which it is.
        source: where the name comes from, such as table and line, for messages.

    Raises:
        InputError: the name climbs out of the root, is longer than any file's or is not UTF-8, which a table of samples
            could not hold.
    """
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name or parts[-1] in ("", "."):
        raise InputError(f"the name {name!r} leads out of the folder {root}", where=source)
    # Python's own questions about such a path end in an error of the system.
    length = len(str(root)) + 1 + len(name)
    if length > _LONGEST_PATH or any(len(part.encode("utf-8", "replace")) > _LONGEST_NAME for part in parts):
        raise InputError(f"the name {name!r} is longer than that of any file", where=source)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        remedy = "Rename it; the program convmv does so for all files of a folder."
        raise InputError(f"the name {name!r} is not UTF-8", where=source, remedy=remedy) from error
