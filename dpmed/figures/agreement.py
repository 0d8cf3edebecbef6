"""Bland-Altman plots: how far predicted values are from true ones, over their whole range."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dpmed.figures.style import PALETTE, new_figure, save_figure

_MOST_PANELS = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class AgreementPanel:
    """One target.

    Attributes:
        name: its name.
        values: predicted values.
        targets: true values, all known.
        lines: bias and limits of agreement, each with its label, value and interval.
    """

    name: str
    values: Float[np.ndarray, " sample"]
    targets: Float[np.ndarray, " sample"]
    lines: Sequence[tuple[str, float, tuple[float, float]]]


def plot_agreement(panels: Sequence[AgreementPanel], folder: Path) -> list[Path]:
    """Draw `agreement.png`: predicted - true against their mean, with bias, limits of agreement and their intervals."""
    shown = panels[:_MOST_PANELS]
    figure, axes = new_figure(width=5.2 * len(shown), height=3.7, columns=len(shown))
    for axis, panel in zip(axes, shown, strict=True):
        middle = (panel.values.astype(np.float64) + panel.targets) / 2
        axis.plot(middle, panel.values - panel.targets, ".", color=PALETTE[0], alpha=0.6, markersize=5)
        axis.axhline(0.0, color="0.6", linestyle=":", linewidth=1)
        for label, value, (low, high) in panel.lines:
            is_bias = label == "bias"
            axis.axhline(value, color=PALETTE[1] if is_bias else PALETTE[6], linestyle="-" if is_bias else "--")
            if np.isfinite([low, high]).all():
                axis.axhspan(low, high, color=PALETTE[1] if is_bias else PALETTE[6], alpha=0.12, linewidth=0)
            # Beside the plot, where it cannot cover any point.
            axis.annotate(
                f"{label}\n{value:+.3g}".replace("-", "−"),
                (1.01, value),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=8,
                annotation_clip=False,
            )
        axis.set(title=panel.name, xlabel="mean of predicted and true", ylabel="predicted − true")
    return save_figure(figure, folder, "agreement", formats=("png",))
