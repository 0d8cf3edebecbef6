"""The figures of `dpmed bounds`: risk over ε, and trade-off curves. Their data are bounds.csv and tradeoff.csv."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpmed.figures.style import PALETTE, new_figure, save_figure

Rows = Sequence[Mapping[str, Any]]

_ADVERSARIES = {
    "worst_case": ("worst-case adversary", PALETTE[1], "-"),
    "relaxed": ("relaxed adversary", PALETTE[0], "--"),
}
_WIDE_RANGE = 30.0


def plot_risks(rows: Rows, folder: Path, *, log_axis: bool, title: str) -> list[Path]:
    """Draw `bounds.png`, `.pdf` and `.svg`: the bound on reconstruction over ε, for each adversary, with the prior.

    Args:
        rows: rows of bounds.csv.
        folder: where to write.
        log_axis: whether ε is drawn on a logarithmic axis.
        title: where the settings come from.
    """
    figure, axes = new_figure(width=6.2, height=3.8)
    axis = axes[0]
    ordered = sorted(rows, key=lambda row: row["epsilon"])
    places = [row["epsilon"] for row in ordered]
    for name, (label, colour, line) in _ADVERSARIES.items():
        if f"{name}_upper" not in ordered[0]:
            continue
        upper = [row[f"{name}_upper"] for row in ordered]
        lower = [row[f"{name}_lower"] for row in ordered]
        axis.fill_between(places, lower, upper, color=colour, alpha=0.25, linewidth=0)
        axis.plot(places, upper, line, color=colour, label=label, marker="o" if len(places) < 4 else None)  # noqa: PLR2004
    prior = ordered[0]["prior"]
    axis.axhline(prior, color="0.35", linewidth=1, linestyle=":", label=f"prior κ = {prior:.2g}: guessing")
    axis.set(xlabel="privacy budget ε", ylabel="chance of reconstruction, at most", ylim=(-0.02, 1.05), title=title)
    if log_axis and places[-1] > _WIDE_RANGE * places[0] * 0.1:
        axis.set_xscale("log")
    axis.legend(frameon=False, loc="center right")
    return save_figure(figure, folder, "bounds")


def plot_tradeoffs(curves: Rows, folder: Path, *, title: str) -> list[Path]:
    """Draw `tradeoff.png`, `.pdf` and `.svg`: TPR over FPR of the best membership test, both logarithmic.

    Args:
        curves: rows of tradeoff.csv.
        folder: where to write.
        title: where the settings come from.
    """
    figure, axes = new_figure(width=5.2, height=4.2)
    axis = axes[0]
    budgets = sorted({row["epsilon"] for row in curves})
    for index, budget in enumerate(budgets):
        for name, (label, _, line) in _ADVERSARIES.items():
            points = [row for row in curves if row["epsilon"] == budget and row["adversary"].replace("-", "_") == name]
            if points:
                axis.plot(
                    [row["fpr"] for row in points],
                    [row["tpr_upper"] for row in points],
                    line,
                    color=PALETTE[index],
                    label=f"ε = {budget:.3g}, {label}",
                )
    ends = [min(row["fpr"] for row in curves), 1.0]
    axis.plot(ends, ends, color="0.35", linewidth=1, linestyle=":", label="guessing")
    axis.set(
        xscale="log", yscale="log", xlabel="false-positive rate", ylabel="true-positive rate, at most", title=title
    )
    axis.legend(frameon=False, fontsize=7.5, loc="lower right")
    return save_figure(figure, folder, "tradeoff")
