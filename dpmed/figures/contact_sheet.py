"""A contact sheet: samples side by side as the model sees them, to check by eye that they are correct.

All samples share one scale, that of all possible values, which a colour bar shows: a data set that is far too dark for
its window looks far too dark. For volumes, the middle slice is shown as radiologists view it, from below, with the
front at the top and the patient's right on the left; label maps are overlaid in colour.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from dpmed.figures.style import add_legend_below, lay_out
from dpmed.files import write_atomically

_MAX_COLUMNS = 8
_DOTS_PER_INCH = 120
_INCHES = 1.3
_BAR_INCHES = 0.9
_TITLE_LETTERS = 22
_LETTERS_PER_COLUMN, _LETTERS_PER_ROW = 22, 26  # as many as fit along a picture's side
_COLOURS = 3
_SMALLEST_WIDTH = 1e-6
# Colours of the classes of masks.
_CLASSES, _MOST_CLASSES, _ALPHA = "Set1", 9, 0.45
_NUMBERS = Normalize(1, _MOST_CLASSES, clip=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlay:
    """The masks of some samples.

    Attributes:
        masks: class numbers per voxel, drawn where they are not 0.
        class_names: names of the classes, from 0 on, for a legend of their colours.
    """

    masks: Shaped[np.ndarray, " sample *space"]
    class_names: Sequence[str] = ()


def plot_contact_sheet(
    path: Path,
    inputs: Float[np.ndarray, "sample *space channel"],
    titles: Sequence[str],
    *,
    limits: tuple[Float[np.ndarray, " channel"], Float[np.ndarray, " channel"]],
    stored: tuple[float, float],
    overlay: Overlay | None = None,
    note: str = "",
) -> None:
    """Write a PNG with one small picture per sample and a bar that shows the grey scale.

    Args:
        path: the file.
        inputs: normalised, as the model gets them; greyscale or colour, with two or three spatial axes (left-right,
            back-front, foot-head).
        titles: one per sample, such as its class.
        limits: the lowest and highest possible value of each channel, shown as black and white.
        stored: the same values as stored in files and cache.
        overlay: masks to draw over the pictures.
        note: what must be known of all of them, written above.
    """
    if len(inputs) != len(titles) or not len(inputs):
        raise ValueError(f"Expected one title per sample, got {len(titles)=} and {len(inputs)=}.")
    columns = min(_MAX_COLUMNS, len(inputs))
    rows = -(-len(inputs) // columns)
    figure = Figure(figsize=(_INCHES * columns + _BAR_INCHES, (_INCHES + 0.25) * rows), layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for number, axes in enumerate(grid.flat):
        axes.set_axis_off()
        if number >= len(inputs):
            continue
        axes.imshow(to_picture(inputs[number], limits), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        if overlay is not None:
            flat = _slice(overlay.masks[number][..., None])[..., 0]
            axes.imshow(
                np.ma.masked_equal(flat, 0), cmap=_CLASSES, norm=_NUMBERS, alpha=_ALPHA, interpolation="nearest"
            )
        # Class names come from folders and tables: a dollar sign in one is not mathematics.
        axes.set_title(_shortened(titles[number]), fontsize=7, parse_math=False)
    _draw_bar(figure, grid, limits, stored)
    if note:
        figure.suptitle("\n".join(textwrap.wrap(note, _LETTERS_PER_COLUMN * (columns + 1))), fontsize=7)
    if overlay is not None and len(overlay.class_names) > 1:
        _add_legend(figure, overlay.class_names)
    lay_out(figure, dots_per_inch=_DOTS_PER_INCH)
    write_atomically(path, canvas.print_png)


def to_picture(
    values: Float[np.ndarray, "*space channel"],
    limits: tuple[Float[np.ndarray, " channel"], Float[np.ndarray, " channel"]],
) -> Float[np.ndarray, "height width *rgb"]:
    """A sample for display: its limits become 0 and 1, and a volume is shown by its middle slice."""
    flat = _slice(values)
    low, high = limits
    shares = np.clip((flat - low) / np.maximum(high - low, _SMALLEST_WIDTH), 0, 1)
    return shares if shares.shape[-1] == _COLOURS else shares[..., 0]


def _draw_bar(
    figure: Figure,
    grid: np.ndarray,
    limits: tuple[Float[np.ndarray, " channel"], Float[np.ndarray, " channel"]],
    stored: tuple[float, float],
) -> None:
    # Channels have their own limits, but all have those of the first if they share one mean and std.
    low, high = (float(ends[0]) for ends in limits)
    grey = ScalarMappable(Normalize(low, max(high, low + _SMALLEST_WIDTH)), cmap="gray")
    bar = figure.colorbar(grey, ax=grid, fraction=0.06, aspect=30)
    bar.ax.tick_params(labelsize=6)
    channel = " of the first channel" if len(np.unique(np.stack(limits), axis=1).T) > 1 else ""
    label = f"what the model sees{channel} (stored: {stored[0]:g} to {stored[1]:g})"
    bar.set_label("\n".join(textwrap.wrap(label, _LETTERS_PER_ROW * len(grid))), fontsize=7)


def _add_legend(figure: Figure, class_names: Sequence[str]) -> None:
    # The last colour stands for all classes from its own on.
    *names, last = class_names[1 : _MOST_CLASSES + 1]
    others = len(class_names) - len(names) - 2
    labels = [*names, f"{last} and {others} more" if others else last]
    handles = [
        Patch(color=mpl.colormaps[_CLASSES](_NUMBERS(number)), alpha=_ALPHA) for number in range(1, len(labels) + 1)
    ]
    add_legend_below(figure, handles, [_shortened(name) for name in labels], columns=_MAX_COLUMNS)


def _slice(values: Shaped[np.ndarray, "*space channel"]) -> Shaped[np.ndarray, "height width channel"]:
    if values.ndim != 4:  # noqa: PLR2004 three axes of space and channels
        return values
    middle = values[:, :, values.shape[2] // 2]
    # Rows run from front to back. In RAS+ the first axis runs from the patient's left to right, so it is flipped to put
    # the patient's right on the left.
    return middle.transpose(1, 0, 2)[::-1, ::-1]


def _shortened(title: str) -> str:
    return title if len(title) <= _TITLE_LETTERS else f"{title[: _TITLE_LETTERS - 1]}…"
