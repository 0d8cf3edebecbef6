"""Originals next to their reconstructions, and the fraction of originals recovered within each distance."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dpmed.figures.style import FORMATS, PALETTE, level_colours, new_figure, save_figure

GALLERY = "reconstructions_ordered"
CURVES = "characteristic_rero_curve"
_PANEL = 1.05
# Of the line below the pictures.
_LETTERS_PER_INCH = 16
_LINES = ("-", "--", "-.", ":")


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """One reconstruction.

    Attributes:
        picture: values in [0, 1]; None if nothing was matched.
        distance: distance to the original.
    """

    picture: Float[np.ndarray, "height width *rgb"] | None
    distance: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class GalleryRow:
    """One original and its reconstruction at each level.

    Attributes:
        title: identifies the original.
        original: values in [0, 1].
        panels: one per level.
    """

    title: str
    original: Float[np.ndarray, "height width *rgb"]
    panels: Sequence[Panel]


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """The distances of one level.

    Attributes:
        label: for the legend.
        is_private: False for the update without noise.
        distances: of the originals that were matched.
        originals: number of originals, matched or not.
    """

    label: str
    is_private: bool
    distances: Float[np.ndarray, " matched"]
    originals: int


def telling_slice(volume: Float[np.ndarray, "*space channel"]) -> int:
    """The slice of a volume whose values vary most; 0 for a picture."""
    if volume.ndim != 4:  # noqa: PLR2004 three axes of space and channels
        return 0
    return int(volume.var((0, 1, 3)).argmax())


def to_picture(values: Float[np.ndarray, "*space channel"], number: int) -> Float[np.ndarray, "height width *rgb"]:
    """An image in [0, 1] for display: of a volume, slice `number`, with front at the top, right on the left."""
    if values.ndim == 4:  # noqa: PLR2004 rows from front to back; RAS+ runs from the left to the right
        values = values[:, :, number].transpose(1, 0, 2)[::-1, ::-1]
    return values if values.shape[-1] == 3 else values[..., 0]  # noqa: PLR2004 red, green, blue


def plot_gallery(
    rows: Sequence[GalleryRow],
    labels: Sequence[str],
    *,
    metric: str,
    folder: Path,
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Draw `reconstructions_ordered`: one row per original, one column per level, with the distance under each.

    Args:
        rows: best recovered first.
        labels: labels of the levels.
        metric: name of the distance.
        folder: where to write.
        formats: file endings.

    Returns:
        The files written.
    """
    columns = len(labels) + 1
    width = _PANEL * columns + 0.1
    caption = textwrap.wrap(
        f"distance ({metric}) to the original; smaller means more similar", int(_LETTERS_PER_INCH * width)
    )
    height = (_PANEL + 0.16) * len(rows) + 0.17 + 0.13 * len(caption)
    figure, axes = new_figure(width=width, height=height, rows=len(rows), columns=columns)
    for number, row in enumerate(rows):
        line = axes[number * columns : (number + 1) * columns]
        _show(line[0], row.original, row.title)
        for axis, panel in zip(line[1:], row.panels, strict=True):
            _show(axis, panel.picture, "–" if panel.distance is None else f"{panel.distance:.3g}")
    for axis, label in zip(axes, ["original", *labels], strict=False):
        axis.set_title(label, fontsize=8)
    figure.supxlabel("\n".join(caption), fontsize=8)
    return save_figure(figure, folder, GALLERY, formats=formats)


def plot_rero_curves(
    curves: Sequence[Curve],
    unrelated: Float[np.ndarray, " original"],
    *,
    metric: str,
    thresholds: Sequence[float],
    folder: Path,
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Draw `characteristic_rero_curve`: the fraction of originals within each distance, one curve per level.

    Args:
        curves: from most to least noise.
        unrelated: distances of originals to their nearest other original, drawn for comparison; may be empty.
        metric: name of the distance.
        thresholds: distances marked by thin lines.
        folder: where to write.
        formats: file endings.

    Returns:
        The files written.
    """
    figure, (axis,) = new_figure(width=5.6, height=3.6)
    finite = np.concatenate([*(curve.distances for curve in curves), unrelated, np.zeros(0)])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    low = min(low, 0.0)
    margin = 0.02 * max(high - low, 1e-9)
    colours = level_colours(sum(curve.is_private for curve in curves), non_private=True)
    for number, curve in enumerate(curves):
        colour = colours[number] if curve.is_private else colours[-1]
        x, y = share_within(curve.distances, curve.originals)
        x, y = (
            np.concatenate([[low - margin], x, [high + margin]]),
            np.concatenate([[0.0], y, y[-1:] if len(y) else [0]]),
        )
        style = _LINES[number % len(_LINES)] if curve.is_private else "-"
        # Line widths differ so that coinciding curves remain visible.
        width = 2.6 - 1.4 * number / max(len(curves) - 1, 1)
        axis.step(x, y, where="post", color=colour, linestyle=style, linewidth=width, zorder=3, label=curve.label)
    if len(unrelated):
        x, y = share_within(unrelated, len(unrelated))
        x, y = np.concatenate([[low - margin], x, [high + margin]]), np.concatenate([[0.0], y, [1.0]])
        axis.step(
            x,
            y,
            where="post",
            color=PALETTE[1],
            linewidth=2.4,
            linestyle=(0, (1, 1)),
            zorder=1,
            label="nearest other\noriginal",
        )
    for threshold in thresholds:
        axis.axvline(threshold, color="0.4", linewidth=0.6, linestyle=":")
    axis.set(xlabel=f"distance ({metric})", ylabel="share of originals within it", ylim=(-0.04, 1.04))
    axis.set_xlim(low - margin, high + margin)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save_figure(figure, folder, CURVES, formats=formats)


def share_within(
    distances: Float[np.ndarray, " matched"], originals: int
) -> tuple[Float[np.ndarray, " matched"], Float[np.ndarray, " matched"]]:
    """Sorted distances, and the fraction of all originals that lies within each."""
    return np.sort(distances), np.arange(1, len(distances) + 1) / max(1, originals)


def _show(axis: Any, picture: Float[np.ndarray, "height width *rgb"] | None, caption: str) -> None:
    axis.grid(visible=False)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.set_xlabel(caption, fontsize=7, labelpad=2, parse_math=False)
    if picture is None:
        axis.text(0.5, 0.5, "nothing\nrecovered", ha="center", va="center", fontsize=7, transform=axis.transAxes)
        axis.set_aspect("equal", adjustable="box")
        return
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
