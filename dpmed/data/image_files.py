"""What the user's own files are brought to: as the config says, and for the depth of pictures as the first file does.

How files are read at all stands in `dpmed.data.decode.files`.
"""

from collections.abc import Sequence
from pathlib import Path

from dpmed.config.data import FolderData, TableData
from dpmed.data.decode.files import depth_for
from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.data.decode.recognise import Kind
from dpmed.data.decode.window import Depth
from dpmed.errors import InputError

_VOLUME = 3  # sides
DEPTH_READ = "The depth of the pictures, 8 or 16 bits, is that of the first file; data.depth fixes it."


def preprocessing_of(config: FolderData | TableData, *, files: int, first: Path) -> Preprocessing:
    """What samples become.

    Args:
        config: of the data set.
        files: of a sample; each of several is a grey channel.
        first: one of the files, whose depth is taken where the config leaves it open.
    """
    if is_volume(config.size):
        return Preprocessing(size=config.size, channels=files, files=files, window=config.window)
    return Preprocessing(
        size=config.size,
        channels=config.channels if files == 1 else files,
        files=files,
        window=config.window,
        depth=config.depth or _depth_of(first),
        narrow=config.depth is not None,
    )


def _depth_of(first: Path) -> Depth:
    try:
        return depth_for(first)
    except InputError:
        return 8  # of no account: it is refused as soon as it is decoded, with all others that are damaged


def depth_notes(config: FolderData | TableData) -> tuple[str, ...]:
    """What the ledger has to say of the depth: it is a fact of the data unless the config gives it."""
    return () if is_volume(config.size) or config.depth is not None else (DEPTH_READ,)


def is_volume(size: Sequence[int]) -> bool:
    """Whether `data.size` is that of volumes."""
    return len(size) == _VOLUME


def problem_with(kind: Kind | None, size: Sequence[int]) -> str | None:
    """What speaks against a file of a kind, before it is opened."""
    if is_volume(size) and kind == "picture":
        return "is no volume (NIfTI or DICOM), but data.size has three sides"
    if not is_volume(size) and kind == "nifti":
        return "is a volume, but data.size has two sides"
    return None
