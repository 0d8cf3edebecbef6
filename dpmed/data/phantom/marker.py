"""`phantom.json` beside the files of a phantom distinguishes them from patients' images, by names and sizes."""

import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path

from dpmed.files import write_json

MARKER = "phantom.json"
_MAX_BYTES = 1 << 16


def mark_phantom(folder: Path, *, layout: str, num: int, seed: int) -> None:
    """Write the description of a folder's files, once all of them are there.

    Raises:
        RunError: the file cannot be written.
    """
    files = {"number": _count(folder), "digest": _digest(folder)}
    facts = {"phantom": layout, "samples": num, "seed": seed, "version": version("dpmed"), "files": files}
    write_json(folder / MARKER, facts)


def phantom_in(folder: Path) -> str | None:
    """The description of a folder, such as `digits, 12000 samples, seed 1`; None if it is not a phantom.

    A folder whose files are not those that were written is not a phantom: it may contain patients' images. The file is
    no proof against deliberate deception, and ε does not depend on it.
    """
    path = folder / MARKER
    try:
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            return None
        facts = json.loads(path.read_text(encoding="utf-8"))
        layout, samples, seed, digest = facts["phantom"], facts["samples"], facts["seed"], facts["files"]["digest"]
        whole = isinstance(samples, int) and isinstance(seed, int) and isinstance(layout, str)
        if not whole or not layout.replace("-", "").isalnum() or digest != _digest(folder):
            return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return f"{layout}, {samples} samples, seed {seed}"


def _files(folder: Path) -> list[tuple[str, int]]:
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if path != folder / MARKER:
                found.append((path.relative_to(folder).as_posix(), path.lstat().st_size))
    return sorted(found)


def _count(folder: Path) -> int:
    return len(_files(folder))


def _digest(folder: Path) -> str:
    return hashlib.sha256(json.dumps(_files(folder)).encode()).hexdigest()
