"""A contact sheet: samples side by side, as they are after preprocessing, to see by eye that they are what they should.

Volumes are shown by their middle slice from below, front at the top, the patient's right on the left, as radiologists
look at them; label maps lie over them in colour.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dpmed.files import write_bytes

_MAX_COLUMNS = 8
_INCHES = 1.3
_TITLE_LETTERS = 22


def plot_contact_sheet(
    path: Path,
    inputs: Float[np.ndarray, "sample *space channel"],
    titles: Sequence[str],
    *,
    masks: Shaped[np.ndarray, "sample *space"] | None = None,
) -> None:
    """Write a PNG with one small picture per sample.

    Args:
        path: the file.
        inputs: as stored after decoding, resizing and windowing, not normalised (colours would be lost); grey or
            coloured, two axes of space or three (left-right, back-front, foot-head).
        titles: one per sample, such as its class.
        masks: class numbers per voxel, drawn over the picture where they are not 0.
    """
    if len(inputs) != len(titles) or not len(inputs):
        raise ValueError(f"Expected one title per sample, got {len(titles)=} and {len(inputs)=}.")
    columns = min(_MAX_COLUMNS, len(inputs))
    rows = -(-len(inputs) // columns)
    figure = Figure(figsize=(_INCHES * columns, (_INCHES + 0.25) * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for number, axes in enumerate(grid.flat):
        axes.set_axis_off()
        if number >= len(inputs):
            continue
        axes.imshow(to_picture(inputs[number]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        if masks is not None:
            flat = _slice(masks[number][..., None])[..., 0]
            axes.imshow(np.ma.masked_equal(flat, 0), cmap="Set1", vmin=1, vmax=9, alpha=0.45, interpolation="nearest")
        # Class names come from folders and tables: a dollar sign in one is not mathematics.
        axes.set_title(titles[number][:_TITLE_LETTERS], fontsize=7, parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes(path, buffer.getvalue())


def to_picture(values: Float[np.ndarray, "*space channel"]) -> Float[np.ndarray, "height width *rgb"]:
    """A stored sample as something to look at: stretched to 0 to 1, volumes by their middle slice."""
    flat = _slice(values)
    low, high = float(flat.min()), float(flat.max())
    stretched = (flat - low) / max(high - low, 1e-6)
    return stretched if stretched.shape[-1] == 3 else stretched[..., 0]  # noqa: PLR2004 red, green, blue


def _slice(values: Shaped[np.ndarray, "*space channel"]) -> Shaped[np.ndarray, "height width channel"]:
    if values.ndim != 4:  # noqa: PLR2004 three axes of space and channels
        return values
    middle = values[:, :, values.shape[2] // 2]
    # Rows from front to back. The first axis runs from the patient's left to the right in RAS+, so it is turned over
    # for the patient's right to lie on the left.
    return middle.transpose(1, 0, 2)[::-1, ::-1]
