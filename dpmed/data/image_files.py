"""How the user's own files are converted: as the config says, though the first file may determine the depth.

Files are read in `dpmed.data.decode.files`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dpmed.config.data import FolderData, TableData
from dpmed.data.decode.files import depth_for
from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.data.decode.recognise import Kind
from dpmed.data.decode.window import Depth
from dpmed.errors import InputError

_VOLUME = 3  # sides
DEPTH_READ = "The depth of the pictures, 8 or 16 bits, was taken from the first file; data.depth sets it."


def preprocessing_of(config: FolderData | TableData, *, files: int, first: Path) -> Preprocessing:
    """How samples are preprocessed.

    Args:
        config: config of the data set.
        files: number of files per sample; each of several is a greyscale channel.
        first: one of the files, whose depth is used if the config does not set it.
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
        return 8  # irrelevant here: it is refused when it is decoded, together with all other damaged files


def depth_notes(config: FolderData | TableData) -> tuple[str, ...]:
    """What the ledger must say about the depth: it depends on the data unless the config sets it."""
    return () if is_volume(config.size) or config.depth is not None else (DEPTH_READ,)


def is_volume(size: Sequence[int]) -> bool:
    """Whether `data.size` is that of volumes."""
    return len(size) == _VOLUME


def check_size(size: Sequence[int], kinds: Mapping[str, Kind | None]) -> None:
    """Refuse a `data.size` that suits none of the files: it, and not each of them, is then at fault.

    Args:
        size: `data.size`.
        kinds: what each file is, by its name.

    Raises:
        InputError: all files are pictures and `data.size` is that of volumes, or the other way round.
    """
    if not kinds or any(problem_with(kind, size) is None for kind in kinds.values()):
        return
    found, wanted = ("pictures", "volumes") if is_volume(size) else ("volumes", "pictures")
    remedy = "Give it three, as volumes have." if wanted == "pictures" else "Give it two, height and width."
    raise InputError(
        f"has {len(size)} sides, as for {wanted}, but all files are {found}, such as {next(iter(kinds))}",
        where="data.size",
        remedy=remedy,
    )


def problem_with(kind: Kind | None, size: Sequence[int]) -> str | None:
    """The reason for refusing a kind of file before opening it, if there is one."""
    if is_volume(size) and kind == "picture":
        return "is not a volume (NIfTI or DICOM), but data.size has three sides"
    if not is_volume(size) and kind == "nifti":
        return "is a volume, but data.size has two sides"
    return None
