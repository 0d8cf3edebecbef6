"""The style of all figures: size, fonts, a palette for colour-blind readers, and files that print well."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from dpmed.files import write_bytes

# Okabe & Ito (2008), "Color universal design": distinguishable with every common colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

FORMATS = ("png", "pdf", "svg")
_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.6,
    "pdf.fonttype": 42,  # embedded as TrueType: editable, and accepted by journals
    "svg.fonttype": "path",  # text drawn as shapes, so it looks the same everywhere
    "svg.hashsalt": "dpmed",  # equal figures give equal files
}
_DOTS_PER_INCH = 160
# Of the scale of levels: beyond it a thin or dotted line is hard to see on white.
_PALEST = 0.7
# Side by side, labels of numbers such as 0.25 fit.
_MOST_TICKS = 12


def new_figure(
    *, width: float, height: float, rows: int = 1, columns: int = 1, ratios: Sequence[float] | None = None
) -> tuple[Figure, list[Any]]:
    """A figure with a grid of axes.

    Args:
        width: inches.
        height: inches.
        rows: rows of axes.
        columns: columns of axes.
        ratios: relative heights of the rows; None for equal heights.

    Returns:
        The figure and its axes, row by row.
    """
    with mpl.rc_context(_SETTINGS):
        # Not pyplot, which keeps every figure alive and may look for a display.
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False, height_ratios=ratios)
    return figure, list(axes.ravel())


def add_legend_below(
    figure: Figure, handles: Sequence[Any], labels: Sequence[str], *, columns: int, title: Sequence[str] = ()
) -> None:
    """Add a legend below all axes, in as many columns as fit side by side; the figure grows by its height.

    Args:
        figure: whose other parts are all there.
        handles: lines and markers.
        labels: a name for each.
        columns: at most.
        title: lines above the names.
    """
    for number in range(columns, 0, -1):
        legend = figure.legend(
            handles, labels, loc="outside lower center", frameon=False, ncols=number,
            title="\n".join(title), title_fontsize=8,
        )  # fmt: skip
        size = legend.get_window_extent()
        if size.width <= figure.bbox.width or number == 1:
            break
        legend.remove()
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + size.height / figure.dpi)


def label_budgets(axis: Any, places: Sequence[float]) -> None:
    """Write the budgets that were computed below the axis of ε: a logarithmic one would show 2 × 10^0, but not 8.

    Args:
        axis: with its scale set.
        places: values of ε, in increasing order.
    """
    different = list({f"{place:.4g}": place for place in places}.values())
    axis.xaxis.set_major_locator(FixedLocator(_apart(different, is_log=axis.get_xscale() == "log")))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{place:.4g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def _apart(places: Sequence[float], *, is_log: bool) -> list[float]:
    """Those of the increasing positions whose labels fit side by side, including the first and the last."""
    at = np.log(places) if is_log else np.asarray(places, np.float64)
    least = (at[-1] - at[0]) / _MOST_TICKS
    kept = [0]
    for number in range(1, len(at)):
        if at[number] - at[kept[-1]] >= least and (number == len(at) - 1 or at[-1] - at[number] >= least):
            kept.append(number)
    return [float(places[number]) for number in kept]


def save_figure(figure: Figure, folder: Path, stem: str, *, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write a figure in each of `formats`, each file whole or not at all.

    Returns:
        The files written, in the order of `formats`.
    """
    paths = []
    with mpl.rc_context(_SETTINGS):
        lay_out(figure, dots_per_inch=_DOTS_PER_INCH)
        for name in formats:
            path = folder / f"{stem}.{name}"
            # Whole in memory first: some writers lose the system's error behind one of their own.
            drawn = io.BytesIO()
            _WRITERS[name](figure, drawn)
            write_bytes(path, drawn.getvalue())
            paths.append(path)
    return paths


def lay_out(figure: Figure, *, dots_per_inch: int) -> None:
    """Fix the places of all parts. `Figure.savefig` finds them anew for each format, and draws all twice for that.

    Args:
        figure: whose parts are all there.
        dots_per_inch: of the picture to be written.
    """
    figure.set_dpi(dots_per_inch)
    engine = figure.get_layout_engine()
    if engine is not None:
        # As `Figure.draw` begins. Drawing the rest too, to no canvas, would take as long again.
        engine.execute(figure)
    figure.set_layout_engine("none")


def _write_png(figure: Figure, file: Any) -> None:
    figure.set_dpi(_DOTS_PER_INCH)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(file)


def _write_pdf(figure: Figure, file: Any) -> None:
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    canvas: Any = FigureCanvasPdf(figure)
    canvas.print_pdf(file, metadata={"CreationDate": None})


def _write_svg(figure: Figure, file: Any) -> None:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(file, metadata={"Date": None})


_WRITERS = {"png": _write_png, "pdf": _write_pdf, "svg": _write_svg}


def level_colours(private: int, *, non_private: bool) -> list[str]:
    """Colours for noise levels, from most to least noise: an ordered scale, then black for no privacy.

    Args:
        private: number of private levels.
        non_private: whether to add black at the end.
    """
    # Cividis looks the same with every common colour vision.
    scale = mpl.colormaps["cividis"]
    colours = [mpl.colors.to_hex(scale(_PALEST * place / max(1, private - 1))) for place in range(private)]
    return colours + ([PALETTE[-1]] if non_private else [])
