"""The confusion matrix as a figure; its data are in confusion.csv beside it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from dpmed.figures.style import new_figure, save_figure

# With more classes than this, numbers and names would be illegible.
_MOST_WRITTEN = 20


def plot_confusion(
    table: Int[np.ndarray, "target choice"],
    class_names: Sequence[str],
    folder: Path,
    *,
    title: str = "test samples",
) -> list[Path]:
    """Draw `confusion.png`: the fraction of each class's samples that was predicted as each class, with counts.

    Args:
        table: counts, one row per true class.
        class_names: names of rows and columns.
        folder: where to write.
        title: what is counted.

    Returns:
        The files written.
    """
    classes = len(class_names)
    side = min(9.0, 2.2 + 0.45 * classes)
    figure, (axis,) = new_figure(width=side + 0.6, height=side)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    image = axis.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    axis.grid(visible=False)
    if classes <= _MOST_WRITTEN:
        axis.set_xticks(range(classes), labels=list(class_names), rotation=45, ha="right")
        axis.set_yticks(range(classes), labels=list(class_names))
        for (row, column), count in np.ndenumerate(table):
            # Cividis is dark below the middle and light above it.
            colour = "white" if shares[row, column] < 0.55 else "black"  # noqa: PLR2004 looks
            axis.text(column, row, str(count), ha="center", va="center", color=colour)
    axis.set(xlabel="predicted class", ylabel="true class", title=title)
    figure.colorbar(image, ax=axis, label="share of the true class", shrink=0.8)
    return save_figure(figure, folder, "confusion", formats=("png",))
