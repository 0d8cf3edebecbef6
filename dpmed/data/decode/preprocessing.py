"""How files are converted before a model sees them: everything that the result depends on besides the file.

It consists only of public facts (from the config), can be written as JSON, and is stored with the model, so that
pictures are decoded for prediction exactly as for training.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dpmed.data.decode.window import HU_WINDOW, Depth, Window, scale_of
from dpmed.errors import InputError

_EIGHT_BITS = 8
_PLANE, _SPACE = 2, 3
_LARGEST_SIDE, _MOST_CHANNELS = 4096, 64
_HALF_EXACT = 2048.0  # whole HU up to here are exact in float16
# Of a window, as in a picture of 8 bits; tiny units and narrow windows would have fewer in float16.
_FEWEST_LEVELS = 256
_KNOWN_WINDOWS: dict[object, Window] = {None: None, "header": "header", "percentiles": "percentiles"}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The conversion of files.

    Attributes:
        size: height and width of pictures, or the three sides of volumes (left-right, back-front, foot-head).
        channels: 1 for greyscale, 3 for colour; volumes must already have this number. A sample of several files has
            one greyscale channel from each.
        files: number of files per sample.
        window: values are clipped to it. Of pictures it becomes the whole range of `depth`, and concerns grey values of
            more than 8 bits and DICOM; None is what the bits can hold, for CT -1024 to 3071 HU. Of volumes the values
            stay in their unit; None is -1024 to 3071. `header` is the window that the file proposes, `percentiles` the
            0.5th to 99.5th of the file: volumes then have values from 0 to 1.
        windows: one per file if they differ; otherwise empty, and `window` applies to all.
        spacing_mm: size of a voxel, after which volumes are cropped or padded; None stretches them to `size`.
        depth: bits per value of pictures, uint8 or uint16.
        narrow: whether pictures of more bits than `depth` are reduced to it; otherwise they are refused.
    """

    size: tuple[int, ...]
    channels: int = 1
    files: int = 1
    window: Window = None
    windows: tuple[Window, ...] = ()
    spacing_mm: tuple[float, float, float] | None = None
    depth: Depth = 8
    narrow: bool = False

    @property
    def volumes(self) -> bool:
        """Whether files are volumes, not pictures."""
        return len(self.size) == _SPACE

    @property
    def scale(self) -> float:
        """The divisor that maps values to the range 0 to 1; 1 for volumes, whose values have a unit."""
        return 1.0 if self.volumes else scale_of(self.depth)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`(*space, channel)`."""
        return (*self.size, self.channels)

    @property
    def value_range(self) -> tuple[float, float]:
        """The lowest and the highest possible value."""
        return min(low for low, _ in self.channel_ranges), max(high for _, high in self.channel_ranges)

    @property
    def channel_ranges(self) -> tuple[tuple[float, float], ...]:
        """The lowest and the highest possible value of each channel."""
        shared = self.channels if self.files == 1 else 1
        return tuple(self._range_of(file) for file in range(self.files) for _ in range(shared))

    @property
    def constants(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std per channel that do not depend on data: the middle and a quarter of the channel's range."""
        ranges, scale = self.channel_ranges, self.scale
        middles = tuple((low + high) / 2 / scale for low, high in ranges)
        return middles, tuple((high - low) / 4 / scale for low, high in ranges)

    @property
    def dtype(self) -> np.dtype:
        """The type of the values."""
        if not self.volumes:
            return np.dtype(np.uint8 if self.depth == _EIGHT_BITS else np.uint16)
        largest = max(map(abs, self.value_range))
        widths = [high - low for low, high in self.channel_ranges]
        is_fine = largest <= _HALF_EXACT and _FEWEST_LEVELS * np.spacing(np.float16(largest)) <= min(widths)
        return np.dtype(np.float16 if is_fine else np.float32)

    def window_of(self, file: int) -> Window:
        """The window of one of the files of a sample."""
        return self.windows[file] if self.windows else self.window

    def _range_of(self, file: int) -> tuple[float, float]:
        if not self.volumes:
            return 0.0, self.scale
        window = self.window_of(file)
        return (0.0, 1.0) if isinstance(window, str) else window or HU_WINDOW

    def to_json(self) -> dict[str, Any]:
        """The preprocessing as JSON types."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, where: str = "") -> "Preprocessing":
        """The inverse of `to_json`.

        Raises:
            InputError: the content is invalid.
        """
        try:
            spacing = content["spacing_mm"]
            found = cls(
                size=tuple(map(int, content["size"])),
                channels=int(content["channels"]),
                files=int(content["files"]),
                window=_window(content["window"]),
                windows=tuple(map(_window, content["windows"])),
                spacing_mm=None if spacing is None else (float(spacing[0]), float(spacing[1]), float(spacing[2])),
                depth=8 if content["depth"] == _EIGHT_BITS else 16,
                narrow=bool(content["narrow"]),
            )
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise InputError("is no description of how files are preprocessed", where=where) from error
        sides = len(found.size) in (_PLANE, _SPACE) and all(1 <= side <= _LARGEST_SIDE for side in found.size)
        channels = 1 <= found.channels <= _MOST_CHANNELS and found.files in (1, found.channels)
        if not sides or not channels or len(found.windows) not in (0, found.files) or found.to_json() != dict(content):
            raise InputError("is no description of how files are preprocessed", where=where)
        return found


def _window(value: Any) -> Window:
    if isinstance(value, list):
        low, high = value
        return float(low), float(high)
    return _KNOWN_WINDOWS[value]


def _plain(value: Any) -> Any:
    """Tuples as lists, at any depth."""
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
