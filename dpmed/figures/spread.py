"""Metrics of several runs: their spread over seeds, and their values against ε with a non-private reference line."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dpmed.figures.style import PALETTE, label_budgets, new_figure, save_figure


def plot_seeds(columns: Mapping[str, Sequence[float]], folder: Path) -> list[Path]:
    """Draw `seeds.png`, `.pdf`, `.svg`: each metric of every run as a dot, next to the mean and standard deviation.

    Args:
        columns: the values of each metric, one per seed, as in `seeds.csv`.
        folder: where to write.
    """
    figure, axes = new_figure(width=1.5 * max(2, len(columns)) + 0.6, height=3.1, columns=max(1, len(columns)))
    mean = "mean ± standard deviation"
    for axis, (name, found) in zip(axes, columns.items(), strict=True):
        values = np.asarray(found, np.float64)
        # Dots are spread sideways in a fixed pattern, so that equal values do not hide each other.
        sideways = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
        axis.plot(sideways, values, "o", color=PALETTE[0], markersize=4, alpha=0.8, label="a run")
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        axis.errorbar([0.35], [values.mean()], yerr=[spread], fmt="D", color=PALETTE[1], capsize=4, label=mean)
        axis.set(title=name.replace("_", " "), xticks=[], xlim=(-0.4, 0.7))
    # Below all panels, where it covers no dot.
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=2, fontsize=8)
    return save_figure(figure, folder, "seeds")


def plot_sweep(
    levels: Sequence[tuple[float, Sequence[float]]],
    non_private: Sequence[float],
    folder: Path,
    *,
    metric: str,
    title: str,
) -> list[Path]:
    """Draw `sweep.png`, `.pdf`, `.svg`: a metric against ε, with its standard deviation and the non-private line.

    Args:
        levels: ε and the metric of each seed's run, as in `sweep.csv`.
        non_private: the metric of each seed's run without privacy; empty for none.
        folder: where to write.
        metric: its name.
        title: what was trained.
    """
    figure, axes = new_figure(width=5.4, height=3.6)
    axis = axes[0]
    ordered = sorted(levels, key=lambda level: level[0])
    places = [epsilon for epsilon, _ in ordered]
    means = np.array([np.mean(values) for _, values in ordered])
    spreads = np.array([np.std(values, ddof=1) if len(values) > 1 else 0.0 for _, values in ordered])
    seeds = max((len(values) for _, values in ordered), default=1)
    spread_of = f" (mean ± standard deviation of {seeds} runs)" if seeds > 1 else ""
    label = f"with privacy{spread_of}"
    # Single runs have no spread: no bars, and none in the legend.
    bars = spreads if seeds > 1 else None
    axis.errorbar(places, means, yerr=bars, fmt="o-", color=PALETTE[0], capsize=3, label=label)
    for epsilon, values in ordered:
        axis.plot([epsilon] * len(values), values, ".", color=PALETTE[0], alpha=0.4)
    if non_private:
        mean, spread = float(np.mean(non_private)), float(np.std(non_private, ddof=1)) if len(non_private) > 1 else 0.0
        axis.axhline(mean, color=PALETTE[1], linestyle="--", label="without privacy")
        axis.axhspan(mean - spread, mean + spread, color=PALETTE[1], alpha=0.15, linewidth=0)
    if places[-1] > 4 * places[0]:
        axis.set_xscale("log")
    label_budgets(axis, places)
    axis.set(xlabel="privacy budget ε", ylabel=f"test {metric.replace('_', ' ')}", title=title)
    axis.legend(frameon=False, loc="lower right", fontsize=7)
    return save_figure(figure, folder, "sweep")
