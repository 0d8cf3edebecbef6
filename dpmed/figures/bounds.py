"""The figures of `dpmed bounds`: risk against ε, trade-off curves, and the success of attacks compared with the bounds.

Their data are in bounds.csv, tradeoff.csv and prior_aware.csv.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmed.figures.style import PALETTE, new_figure, save_figure

Rows = Sequence[Mapping[str, Any]]

_ADVERSARIES = {
    "worst_case": ("worst-case adversary", PALETTE[1], "-"),
    "relaxed": ("relaxed adversary", PALETTE[0], "--"),
}
_MARKERS = {"worst_case": "o", "relaxed": "s"}
_WIDE_RANGE = 30.0


@dataclass(frozen=True, kw_only=True)
class MeasuredPoint:
    """The success of an attack at one ε.

    Attributes:
        adversary: `worst-case` or `relaxed`.
        epsilon: position on the axis.
        rate: success rate.
        low: lower end of its interval.
        high: upper end of its interval.
    """

    adversary: str
    epsilon: float
    rate: float
    low: float
    high: float


def plot_risks(
    rows: Rows, folder: Path, *, log_axis: bool, title: str, measured: Sequence[MeasuredPoint] = ()
) -> list[Path]:
    """Draw `bounds.png`, `.pdf` and `.svg`: the bound on reconstruction against ε, for each adversary, with the prior.

    Args:
        rows: rows of bounds.csv.
        folder: where to write.
        log_axis: whether ε is drawn on a logarithmic axis.
        title: where the settings come from.
        measured: the success of an attack at the same settings.
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
        axis.plot(places, upper, line, color=colour, label=f"{label}: at most", marker="o" if len(places) < 4 else None)  # noqa: PLR2004
    _draw_measured(axis, measured)
    _finish_risks(axis, prior=ordered[0]["prior"], title=title)
    places += [point.epsilon for point in measured]
    if log_axis and max(places) > _WIDE_RANGE * min(places) * 0.1:
        axis.set_xscale("log")
    # Over a wide range, the right-hand side below the bound is empty; with points there, wherever there is room.
    axis.legend(frameon=False, loc="best" if measured else "center right")
    return save_figure(figure, folder, "bounds")


def plot_attack(rows: Rows, folder: Path, *, title: str) -> list[Path]:
    """Draw `prior_aware.png`, `.pdf` and `.svg`: success rates with intervals, and the bounds.

    Args:
        rows: rows of prior_aware.csv.
        folder: where to write.
        title: what was attacked.
    """
    figure, axes = new_figure(width=6.2, height=3.8)
    axis = axes[0]
    ordered = sorted(rows, key=lambda row: row["epsilon"])
    for name, (label, colour, line) in _ADVERSARIES.items():
        own = [row for row in ordered if row["adversary"].replace("-", "_") == name]
        if own:
            bound = [row["bound_upper"] for row in own]
            axis.plot([row["epsilon"] for row in own], bound, line, color=colour, label=f"{label}: bound")
            ideal = [row["ideal_rate"] for row in own]
            axis.plot(
                [row["epsilon"] for row in own], ideal, "x", color=colour, markersize=4, label="with ideal gradients"
            )
    _draw_measured(axis, [measured_point(row, epsilon=row["epsilon"]) for row in ordered])
    _finish_risks(axis, prior=ordered[0]["prior"], title=title)
    axis.set_xscale("log")
    axis.legend(frameon=False, loc="best")
    return save_figure(figure, folder, "prior_aware")


def measured_point(row: Mapping[str, Any], *, epsilon: float) -> MeasuredPoint:
    """The point of a row of prior_aware.csv, at its ε on the axis."""
    return MeasuredPoint(
        adversary=row["adversary"], epsilon=epsilon, rate=row["success_rate"], low=row["ci_low"], high=row["ci_high"]
    )


def _draw_measured(axis: Any, measured: Sequence[MeasuredPoint]) -> None:
    for name, (label, colour, _) in _ADVERSARIES.items():
        own = [point for point in measured if point.adversary.replace("-", "_") == name]
        if own:
            rates = [point.rate for point in own]
            errors = [[p.rate - p.low for p in own], [p.high - p.rate for p in own]]
            axis.errorbar(
                [point.epsilon for point in own],
                rates,
                yerr=errors,
                fmt=_MARKERS[name],
                color=colour,
                markersize=4,
                linewidth=1.1,
                capsize=2,
                label=f"{label}: measured, 99 %",
            )


def _finish_risks(axis: Any, *, prior: float, title: str) -> None:
    axis.axhline(prior, color="0.35", linewidth=1, linestyle=":", label=f"prior κ = {prior:.2g}: guessing")
    axis.set(xlabel="privacy budget ε", ylabel="probability of reconstruction", ylim=(-0.02, 1.05), title=title)


def plot_tradeoffs(curves: Rows, folder: Path, *, title: str) -> list[Path]:
    """Draw `tradeoff.png`, `.pdf` and `.svg`: TPR against FPR of the best membership test, both logarithmic.

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
