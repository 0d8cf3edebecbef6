"""An audit on one axis: what is claimed, and what was measured at least."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpmed.figures.style import PALETTE, new_figure, save_figure

AUDIT = "audit"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One measurement.

    Attributes:
        name: of the kind of canary.
        lower: the lower confidence limit of ε.
        best: what the limit would be, about, if all were as claimed; None where it is not known.
    """

    name: str
    lower: float
    best: float | None


def plot_audit(bars: Sequence[Bar], folder: Path, *, claimed: float, confidence: float, delta: float) -> list[Path]:
    """Draw `audit.png`: a line at the claim, a bar up to each limit, a mark where it would be at best.

    Args:
        bars: one per kind.
        folder: where to write.
        claimed: ε that the accountant states.
        confidence: of the limits.
        delta: δ of all.
    """
    figure, axes = new_figure(width=6.4, height=1.5 + 0.5 * len(bars))
    axis = axes[0]
    for place, bar in enumerate(bars):
        is_above = bar.lower > claimed
        axis.barh(place, bar.lower, height=0.5, color=PALETTE[1] if is_above else PALETTE[0])
        if bar.best is not None:
            label = "reached if all is as claimed" if place == 0 else None
            axis.plot([bar.best], [place], marker="|", markersize=16, linestyle="none", color=PALETTE[2], label=label)
    axis.axvline(claimed, linestyle="--", color="0.3", label=f"claimed: ε = {claimed:.4g}")
    axis.set(
        yticks=range(len(bars)), yticklabels=[f"{bar.name}\nε ≥ {bar.lower:.3g}" for bar in bars],
        xlabel=f"ε at δ = {delta:g}",
        title=f"Measured: ε is at least this, with {confidence:.0%} confidence",
        xlim=(0, 1.25 * max(claimed, *(bar.lower for bar in bars))), ylim=(len(bars) - 0.4, -0.6),
    )  # fmt: skip
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", frameon=False, ncols=2)
    return save_figure(figure, folder, AUDIT)
