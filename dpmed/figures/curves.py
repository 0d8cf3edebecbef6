"""The curves of a training run: loss, main metric and ε over the steps. The data are in metrics.csv beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpmed.figures.style import PALETTE, new_figure, save_figure

_LINES = {"train": ("training", PALETTE[0]), "validation": ("validation", PALETTE[1])}


def plot_curves(
    rows: Sequence[Mapping[str, Any]], folder: Path, *, metric: str, epsilon_planned: float | None
) -> list[Path]:
    """Draw `curves.png`.

    Args:
        rows: rows of metrics.csv.
        folder: where to write.
        metric: the main metric, a column of the validation rows.
        epsilon_planned: the budget, drawn as a line; None without privacy, in which case there is no panel for ε.

    Returns:
        The files written.
    """
    panels = 2 if epsilon_planned is None else 3
    figure, axes = new_figure(width=3.4 * panels, height=2.9, columns=panels)
    for split, (label, colour) in _LINES.items():
        _line(axes[0], rows, split, "loss", label=label, color=colour)
    _line(axes[1], rows, "validation", metric, label="validation", color=PALETTE[1])
    tests = [row for row in rows if row["split"] == "test" and row.get(metric) is not None]
    for row in tests:
        axes[1].plot([row["step"]], [row[metric]], marker="D", linestyle="none", color=PALETTE[2], label="test")
    if epsilon_planned is not None:
        _line(axes[2], rows, "validation", "epsilon", label="spent", color=PALETTE[3])
        axes[2].axhline(epsilon_planned, linestyle="--", linewidth=1, color="0.4", label="planned")
        axes[2].set(ylim=(0, None))
    # Limits come last: once set, they no longer follow what is drawn.
    for axis, title in zip(axes, ("loss", metric.replace("_", " "), "privacy spent, ε"), strict=False):
        axis.set(title=title, xlabel="step", xlim=(0, None))
        axis.legend(frameon=False)
    return save_figure(figure, folder, "curves", formats=("png",))


def _line(axis: Any, rows: Sequence[Mapping[str, Any]], split: str, column: str, **style: Any) -> None:
    points = [(row["step"], row[column]) for row in rows if row["split"] == split and row.get(column) is not None]
    # A marker shows a single evaluation, which a line alone would not.
    axis.plot([x for x, _ in points], [y for _, y in points], marker="." if len(points) < 15 else None, **style)  # noqa: PLR2004 looks
