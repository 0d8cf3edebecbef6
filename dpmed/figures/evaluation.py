"""Figures of an evaluation: ROC and precision-recall curves, and calibration of probabilities."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from dpmed.figures.style import PALETTE, add_legend_below, new_figure, save_figure

_MOST_LINES = 7
# The share of positives among fewer samples is mostly chance.
_FEW = 10
_BARS = 20
_LEGEND_COLUMNS = 3
# Characters of a line below a narrow figure, and how many such lines.
_LINE, _MOST_LINES_OF_NAMES = 64, 4
# Characters of a line of the legend: a longer name takes several.
_NAME = 36


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Samples of similar probability.

    Attributes:
        predicted: mean predicted probability.
        seen: the share of positives.
        interval: its 95 % interval.
        samples: how many there are.
    """

    predicted: float
    seen: float
    interval: tuple[float, float]
    samples: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """One class against the rest, or one label.

    Attributes:
        name: its name.
        probability: predicted probability for each sample.
        positive: the truth.
        bins: predicted and observed frequencies.
        auroc: area under its ROC curve; NaN if all samples have one answer.
    """

    name: str
    probability: Float[np.ndarray, " sample"]
    positive: Bool[np.ndarray, " sample"]
    bins: Sequence[Bin]
    auroc: float


def plot_thresholds(questions: Sequence[Question], folder: Path) -> list[Path]:
    """Draw `roc.png`: sensitivity against 1 - specificity, and precision against sensitivity, over all thresholds.

    Dotted lines show random guessing: the diagonal, and for a single question the fraction of positives. If more than
    seven questions have both answers, the seven with the smallest AUROC are drawn, and the others named.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    shown, others = _worst([one for one in questions if not np.isnan(one.auroc)])
    figure, (roc, pr) = new_figure(width=7.4, height=3.8, columns=2)
    for question, colour in zip(shown, PALETTE, strict=False):
        false_alarms, found, _ = roc_curve(question.positive, question.probability)
        roc.plot(false_alarms, found, color=colour, label=_labelled(question))
        precision, recall, _ = precision_recall_curve(question.positive, question.probability)
        # The last point, precision 1 at recall 0, is a convention, not a threshold.
        pr.plot(recall[:-1], precision[:-1], color=colour)
    roc.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
    if len(shown) == 1 and not others:
        pr.axhline(float(shown[0].positive.mean()), color="0.6", linestyle=":", linewidth=1)
    roc.set(title="ROC", xlabel="1 − specificity", ylabel="sensitivity")
    pr.set(title="precision and recall", xlabel="sensitivity (recall)", ylabel="PPV (precision)")
    for axis in (roc, pr):
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    if shown:
        _add_legend(figure, roc, others)
    return save_figure(figure, folder, "roc", formats=("png",))


def plot_calibration(questions: Sequence[Question], folder: Path) -> list[Path]:
    """Draw `calibration.png`: observed against predicted frequencies, and below a histogram of the predictions.

    Bins of fewer than ten samples are hollow dots, not joined to the others. Intervals are drawn for a single question
    only, since those of several would overlap. Of more than seven questions, those with the smallest AUROC are drawn.
    """
    shown, others = _worst(questions)
    figure, (axis, counts) = new_figure(width=4.6, height=5.4, rows=2, ratios=(3.0, 1.0))
    axis.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
    for question, colour in zip(shown, PALETTE, strict=False):
        x, y = np.array([(one.predicted, one.seen) for one in question.bins]).T
        few = np.array([one.samples < _FEW for one in question.bins])
        # NaN breaks the line, which would otherwise run across bins that say nothing.
        axis.plot(x, np.where(few, np.nan, y), color=colour, marker="o", markersize=4, label=_labelled(question))
        axis.plot(x[few], y[few], "o", color=colour, markersize=3, markerfacecolor="white", markeredgewidth=0.8)
        if len(shown) == 1:
            low = [max(one.seen - one.interval[0], 0.0) for one in question.bins]
            high = [max(one.interval[1] - one.seen, 0.0) for one in question.bins]
            axis.errorbar(x, y, yerr=[low, high], fmt="none", ecolor=colour, elinewidth=1.1, capsize=2, zorder=1)
        edges = np.linspace(0, 1, _BARS + 1)
        counts.hist(question.probability, bins=edges.tolist(), histtype="step", color=colour)
    title = "calibration, 95 % intervals" if len(shown) == 1 else "calibration"
    note = f"\nhollow: bins of fewer than {_FEW} samples"
    axis.set(xlabel="predicted probability", ylabel="observed share of positives", ylim=(-0.02, 1.02))
    axis.set_title(f"{title}{note}", fontsize=9)
    counts.set(xlabel="predicted probability", ylabel="samples", yscale="log")
    # Within a decade, the labels of minor ticks would overlap.
    counts.yaxis.set_minor_formatter(NullFormatter())
    counts.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    counts.set_ylim(0.7, None)
    for one in (axis, counts):
        one.set(xlim=(-0.02, 1.02))
    _add_legend(figure, axis, others)
    return save_figure(figure, folder, "calibration", formats=("png",))


def _worst(questions: Sequence[Question]) -> tuple[list[Question], list[str]]:
    """The questions that are drawn, in their own order, and the names of the others: the best of too many."""
    # Those without an AUROC come last; places tell questions of one name apart.
    order = sorted(range(len(questions)), key=lambda place: (np.nan_to_num(questions[place].auroc, nan=2.0), place))
    chosen = sorted(order[:_MOST_LINES])
    others = [question.name for place, question in enumerate(questions) if place not in chosen]
    return [questions[place] for place in chosen], others


def _labelled(question: Question) -> str:
    return question.name if np.isnan(question.auroc) else f"{question.name} ({question.auroc:.3f})"


def _add_legend(figure: Figure, axis: Any, others: Sequence[str]) -> None:
    """Names with their AUROC below all axes, and below them what is not drawn."""
    handles, names = axis.get_legend_handles_labels()
    add_legend_below(
        figure, handles, [textwrap.fill(name, _NAME) for name in names], columns=_LEGEND_COLUMNS,
        title=_explained(others),
    )  # fmt: skip


def _explained(others: Sequence[str]) -> list[str]:
    """What stands in brackets and what is not drawn, in lines that fit below a narrow figure."""
    rest = f", of which the {_MOST_LINES} smallest are drawn; not drawn: {', '.join(others)}" if others else ""
    return textwrap.wrap(f"in brackets: AUROC{rest}", _LINE, max_lines=_MOST_LINES_OF_NAMES, placeholder=" …")
