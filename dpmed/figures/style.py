"""The style of all figures: size, fonts, a palette for colour-blind readers, and files that print well."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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
