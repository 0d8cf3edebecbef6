"""The figures of `dpmed bounds`: risk against ε, trade-off curves, and the success of attacks compared with the bounds.

Their data are in bounds.csv, tradeoff.csv and prior_aware.csv. A bound is proven at the points that were computed.
Few are drawn alone, since a line between them would lie below the bound. Many are drawn as steps, which do not: risk
grows with ε, so the bound at one ε also holds at every smaller one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dpmed.figures.style import PALETTE, label_budgets, new_figure, save_figure
from dpmed.rounding import rounded_up

Rows = Sequence[Mapping[str, Any]]

_ADVERSARIES = {
    "worst_case": ("worst-case adversary", PALETTE[1], "-"),
    "relaxed": ("relaxed adversary", PALETTE[0], "--"),
}
_CONSTANT = ("relaxed_constant_sign", "relaxed, sign constant", PALETTE[5], "-.")
_MARKERS = {"worst_case": "o", "relaxed": "s", "relaxed_constant_sign": "D"}
# Points at one place are seen through one another.
_SIZES = {"worst_case": 10, "relaxed": 4, "relaxed_constant_sign": 6}
_WIDE_RANGE = 30.0
_ASIDE = 1.06
# From so many points on, steps are drawn between them.
_MANY = 10
# Budgets within this factor of one another need room beside them.
_NARROW = 1.5

Vector = Float[np.ndarray, " n"]


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
    figure, axes = new_figure(width=6.2, height=4.3)
    axis = axes[0]
    ordered = sorted(rows, key=lambda row: row["epsilon"])
    places = [row["epsilon"] for row in ordered]
    for name, label, colour, line in (*((name, *style) for name, style in _ADVERSARIES.items()), _CONSTANT):
        if f"{name}_upper" not in ordered[0]:
            continue
        upper = [row[f"{name}_upper"] for row in ordered]
        if len(places) < _MANY:
            axis.plot(
                places,
                upper,
                _MARKERS[name],
                color=colour,
                markersize=_SIZES[name],
                fillstyle="none",
                label=f"{label}: at most",
            )
            continue
        axis.plot(places, upper, line, color=colour, drawstyle="steps-pre", label=f"{label}: at most")
        if f"{name}_lower" in ordered[0]:
            axis.fill_between(*_between(ordered, name), color=colour, alpha=0.25, linewidth=0)
    _draw_measured(axis, measured)
    _finish_risks(axis, prior=ordered[0]["prior"], title=title)
    places += [point.epsilon for point in measured]
    if log_axis and max(places) > _WIDE_RANGE * min(places) * 0.1:
        axis.set_xscale("log")
    if len(places) < _MANY:
        _write_budgets(axis, places)
    _legend_below(figure)
    return save_figure(figure, folder, "bounds")


def plot_attack(rows: Rows, folder: Path, *, title: str) -> list[Path]:
    """Draw `prior_aware.png`, `.pdf` and `.svg`: success rates, also with ideal gradients, with intervals, and bounds.

    Args:
        rows: rows of prior_aware.csv.
        folder: where to write.
        title: what was attacked.
    """
    figure, axes = new_figure(width=6.2, height=4.3)
    axis = axes[0]
    ordered = sorted(rows, key=lambda row: row["epsilon"])
    for name, (label, colour, _) in _ADVERSARIES.items():
        own = [row for row in ordered if row["adversary"].replace("-", "_") == name]
        if own:
            places, bound = [row["epsilon"] for row in own], [row["bound_upper"] for row in own]
            axis.plot(places, bound, "_", color=colour, markersize=20, markeredgewidth=1.8, label=f"{label}: at most")
            _draw_ideal(axis, own, colour=colour, label=label)
    _draw_measured(axis, [measured_point(row, epsilon=row["epsilon"]) for row in ordered])
    _finish_risks(axis, prior=ordered[0]["prior"], title=title)
    axis.set_xscale("log")
    if len(ordered) < _MANY:
        _write_budgets(axis, [row["epsilon"] for row in ordered])
    by_label = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    # A column for each adversary; guessing, which is neither's, ends the first.
    order = sorted(by_label, key=lambda label: (label.startswith("relaxed"), label.startswith("prior")))
    handles = [by_label[label] for label in order]
    figure.legend(handles, order, frameon=False, loc="outside lower center", ncols=2, fontsize=8)
    return save_figure(figure, folder, "prior_aware")


def _write_budgets(axis: Any, places: Sequence[float]) -> None:
    """The budgets below the axis; a single one stands in the middle, not beside one that differs by rounding alone."""
    low, high = min(places), max(places)
    if high < _NARROW * low:
        axis.set_xlim(low / _NARROW, high * _NARROW)
    label_budgets(axis, sorted(places))


def _draw_ideal(axis: Any, rows: Rows, *, colour: str, label: str) -> None:
    # Tables of earlier versions have no intervals of it.
    known = [row for row in rows if row.get("ideal_low") is not None]
    below = [row["ideal_rate"] - row["ideal_low"] for row in known]
    above = [row["ideal_high"] - row["ideal_rate"] for row in known]
    axis.errorbar(
        # Beside what was measured, so that the intervals do not hide each other.
        [_ASIDE * row["epsilon"] for row in known],
        [row["ideal_rate"] for row in known],
        yerr=[below, above],
        fmt="x",
        color=colour,
        markersize=4,
        linewidth=1.1,
        capsize=2,
        alpha=0.6,
        label=f"{label}: ideal gradients, 99 %",
    )


def _between(ordered: Rows, name: str) -> tuple[Vector, Vector, Vector]:
    """The ends of the steps between computed points: ε, at least and at most what is proven there.

    Risk grows with ε: what it is at least at one point holds up to the next one, and what it is at most at the next one
    holds down to this one.

    Args:
        ordered: rows of bounds.csv in increasing order of ε.
        name: the adversary.
    """
    places, lower, upper = (
        np.repeat(np.array([row[key] for row in ordered], np.float64), 2)
        for key in ("epsilon", f"{name}_lower", f"{name}_upper")
    )
    return places[1:-1], lower[:-2], upper[2:]


def _legend_below(figure: Any) -> None:
    """The legend where it hides no point."""
    figure.legend(frameon=False, loc="outside lower center", ncols=2)


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
                    marker="o",
                    markersize=3.5,
                    label=f"ε = {rounded_up(budget)}, {label}",
                )
    ends = [min(row["fpr"] for row in curves), 1.0]
    axis.plot(ends, ends, color="0.35", linewidth=1, linestyle=":", label="guessing")
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="false-positive rate",
        ylabel="true-positive rate, at most (at the dots)",
        title=title,
    )
    axis.legend(frameon=False, fontsize=7.5, loc="lower right")
    return save_figure(figure, folder, "tradeoff")
