"""Metrics of a run for tools that plot them during training: the rows of metrics.csv, written next to it.

Like metrics.csv itself, they are exact numbers from private data, which ε does not cover. Nothing is sent anywhere.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from numbers import Real
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from dpmed.errors import InputError, install_extra
from dpmed.files import make_folder

TENSORBOARD_FOLDER = "tensorboard"
CAUTION = (
    "Exact numbers of private data, as in metrics.csv, which ε does not cover: this folder stays within your "
    "institution."
)
_NOT_SCALARS = ("epoch", "step", "split")


@runtime_checkable
class Tracker(Protocol):
    """Receives the rows of metrics.csv as they are produced."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write those of the rows so far that have not been written yet."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


class NoTracker:
    """Writes nothing."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class TensorBoard:
    """Event files for TensorBoard, one curve per split and column.

    Args:
        folder: where to write; created if missing.
        done: rows that an earlier process has written.
        last_step: step of the last of them; later events belong to steps that were lost in a crash.
    """

    def __init__(self, folder: Path, *, done: int = 0, last_step: int = 0) -> None:
        from tensorboardX import SummaryWriter

        make_folder(folder)
        # File names contain the second of their creation; a run resumed within it must not reuse the first one's file.
        suffix = f".{len(list(folder.iterdir())):04d}"
        self._writer = SummaryWriter(str(folder), purge_step=last_step + 1 if done else None, filename_suffix=suffix)
        self._done = done
        self._writer.add_text("caution", CAUTION)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write every number in the new rows."""
        for row in rows[self._done :]:
            for name, value in row.items():
                if name not in _NOT_SCALARS and isinstance(value, Real):
                    self._writer.add_scalar(f"{row['split']}/{name}", float(value), int(row["step"]))
        self._done = max(self._done, len(rows))
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


def check_trackers(names: Sequence[str]) -> None:
    """Check that the packages for tracking are installed, before anything is trained.

    Raises:
        InputError: one is missing.
    """
    if "tensorboard" in names and find_spec("tensorboardX") is None:
        raise InputError(
            "tensorboard needs the package tensorboardX, which is not installed",
            where="training.track",
            remedy=install_extra("tensorboard"),
        )


def open_tracker(names: Sequence[str], folder: Path, *, rows: Sequence[Mapping[str, Any]] = ()) -> Tracker:
    """The tracker of a run.

    Args:
        names: as in the config.
        folder: the run folder.
        rows: rows of metrics.csv that the run has already produced.
    """
    if "tensorboard" not in names:
        return NoTracker()
    last_step = max((int(row["step"]) for row in rows), default=0)
    return TensorBoard(folder / TENSORBOARD_FOLDER, done=len(rows), last_step=last_step)
