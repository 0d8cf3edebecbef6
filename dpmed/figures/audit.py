"""An audit on one axis: the claimed ε, the measured lower limits, and the most that the same test can show."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dpmed.figures.style import PALETTE, new_figure, save_figure
from dpmed.rounding import rounded_down, rounded_up, stated_delta

AUDIT = "audit"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One measurement.

    Attributes:
        name: name of the kind of canary.
        lower: the lower confidence limit of ε.
        best: the approximate limit if everything is as claimed; None if it is unknown.
    """

    name: str
    lower: float
    best: float | None


def plot_audit(bars: Sequence[Bar], folder: Path, *, claimed: float, confidence: float, delta: float) -> list[Path]:
    """Draw `audit.png`: a line at the claim, a bar up to each limit, and a mark at its best possible value.

    A limit above the claim is drawn in another colour, and the title says whether there is one.

    Args:
        bars: one per kind.
        folder: where to write.
        claimed: ε stated by the accountant.
        confidence: the confidence with which all limits hold jointly.
        delta: δ of all of them.
    """
    figure, axes = new_figure(width=6.8, height=1.9 + 0.5 * len(bars))
    axis = axes[0]
    highest = max(bar.lower for bar in bars)
    for place, bar in enumerate(bars):
        is_above = bar.lower > claimed
        axis.barh(place, bar.lower, height=0.5, color=PALETTE[1] if is_above else PALETTE[0])
        if bar.best is not None:
            axis.plot(
                [bar.best], [place], marker="|", markersize=18, markeredgewidth=2, linestyle="none", color=PALETTE[2],
                label="about what this test finds if all is as claimed" if place == 0 else None,
            )  # fmt: skip
    stated = rounded_up(claimed)
    axis.axvline(claimed, linestyle="--", color="0.3", label=f"claimed and proven: ε ≤ {stated}")
    found = f"measured ε ≥ {rounded_down(highest, 3)}" if highest > 0 else "no test found anything"
    verdict = (
        f"The claim does not hold: ε is at least {rounded_down(highest)}, not at most {stated}"
        if highest > claimed
        else f"Nothing contradicts the claim: {found}, claimed ε ≤ {stated}"
    )
    axis.set(
        yticks=range(len(bars)), yticklabels=[f"{bar.name}\nε ≥ {rounded_down(bar.lower, 3)}" for bar in bars],
        xlabel=f"ε at δ = {stated_delta(delta)}  (bars: lower limits, jointly with {100 * confidence:g} % confidence)",
        xlim=(0, 1.15 * max(claimed, *(max(bar.lower, bar.best or 0.0) for bar in bars))),
        ylim=(len(bars) - 0.4, -0.6),
    )  # fmt: skip
    figure.suptitle(verdict, color=PALETTE[1] if highest > claimed else "black", fontsize=10)
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", frameon=False, ncols=2)
    return save_figure(figure, folder, AUDIT)
