"""Values of models, or differences between them, with intervals; one panel per metric, since each has its own unit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from dpmed.figures.style import FORMATS, PALETTE, new_figure, save_figure

_MOST_PANELS = 8


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One metric.

    Attributes:
        title: its name.
        labels: labels of the rows, from the top.
        values: value of each row; NaN if there is none.
        intervals: interval of each row; None if there is none.
        is_difference: whether 0 means that two models are equal, and is marked.
    """

    title: str
    labels: Sequence[str]
    values: Sequence[float]
    intervals: Sequence[tuple[float, float] | None]
    is_difference: bool = False


def plot_forest(
    panels: Sequence[Panel], folder: Path, stem: str, *, heading: str = "", formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Draw a row per model, a panel per metric (the first eight), and fill differences whose interval excludes 0.

    Args:
        panels: at least one.
        folder: where to write.
        stem: stem of the file names; the data are in the table of the same stem.
        heading: heading above all panels.
        formats: file formats.
    """
    shown = panels[:_MOST_PANELS]
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    longest = max(len(label) for panel in shown for label in panel.labels)
    # Names are at the left of each panel and need space.
    width = columns * (2.8 + 0.075 * min(longest, 40))
    height = 0.3 * bool(heading) + rows * (0.75 + 0.26 * max(len(panel.labels) for panel in shown))
    figure, axes = new_figure(width=width, height=height, rows=rows, columns=columns)
    if heading:
        figure.suptitle(_short(heading), fontsize=10)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    for axis, panel in zip(axes, shown, strict=False):
        if panel.is_difference:
            axis.axvline(0.0, color="0.4", linestyle="--", linewidth=1)
        for place, (value, interval) in enumerate(zip(panel.values, panel.intervals, strict=True)):
            low, high = interval or (value, value)
            clear = not panel.is_difference or (interval is not None and not low <= 0 <= high)
            axis.plot([low, high], [place, place], color=PALETTE[0])
            axis.plot(
                [value], [place], "o", color=PALETTE[0], markersize=5, markerfacecolor=PALETTE[0] if clear else "white"
            )
        axis.set_yticks(range(len(panel.labels)), labels=[_short(label) for label in panel.labels])
        axis.set(title=panel.title.replace("_", " "), ylim=(len(panel.labels) - 0.5, -0.5))
        axis.grid(visible=False, axis="y")
        # At most four numbers: more would write over each other in so narrow a panel.
        axis.xaxis.set_major_locator(MaxNLocator(nbins=3))
    return save_figure(figure, folder, stem, formats=formats)


def _short(label: str) -> str:
    return label if len(label) <= 40 else f"…{label[-39:]}"  # noqa: PLR2004 looks
