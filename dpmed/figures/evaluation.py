"""Figures of an evaluation: ROC and precision-recall curves, and calibration of probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from dpmed.figures.style import PALETTE, new_figure, save_figure

_MOST_LINES = 7
_BARS = 20
_LEGEND_COLUMNS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """One class against the rest, or one label.

    Attributes:
        name: its name.
        probability: predicted probability for each sample.
        positive: the truth.
        bins: predicted and observed frequencies, with intervals of the observed ones.
    """

    name: str
    probability: Float[np.ndarray, " sample"]
    positive: Bool[np.ndarray, " sample"]
    bins: Sequence[tuple[float, float, tuple[float, float]]]


def plot_thresholds(questions: Sequence[Question], folder: Path) -> list[Path]:
    """Draw `roc.png`: sensitivity against 1 - specificity, and precision against sensitivity, over all thresholds.

    Dotted lines show random guessing: the diagonal, and for a single question the fraction of positives. If there are
    more than seven questions, the first seven that have both answers are drawn.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    both = [one for one in questions if one.positive.any() and not one.positive.all()]
    figure, (roc, pr) = new_figure(
        width=7.4, height=3.8 + 0.2 * (min(len(both), _MOST_LINES) > _LEGEND_COLUMNS), columns=2
    )
    for question, colour in zip(both[:_MOST_LINES], PALETTE, strict=False):
        false_alarms, found, _ = roc_curve(question.positive, question.probability)
        roc.plot(false_alarms, found, color=colour, label=question.name)
        precision, recall, _ = precision_recall_curve(question.positive, question.probability)
        # The last point, precision 1 at recall 0, is a convention, not a threshold.
        pr.plot(recall[:-1], precision[:-1], color=colour)
    roc.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
    if len(both) == 1:
        pr.axhline(float(both[0].positive.mean()), color="0.6", linestyle=":", linewidth=1)
    more = f", {_MOST_LINES} of {len(both)}" if len(both) > _MOST_LINES else ""
    roc.set(title=f"ROC{more}", xlabel="1 − specificity", ylabel="sensitivity")
    pr.set(title=f"precision and recall{more}", xlabel="sensitivity (recall)", ylabel="PPV (precision)")
    for axis in (roc, pr):
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    if both:
        figure.legend(
            *roc.get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=_LEGEND_COLUMNS
        )
    return save_figure(figure, folder, "roc", formats=("png",))


def plot_calibration(questions: Sequence[Question], folder: Path) -> list[Path]:
    """Draw `calibration.png`: observed against predicted frequencies, and below a histogram of the predictions.

    Intervals are drawn for a single question only, since those of several would overlap.
    """
    shown = questions[:_MOST_LINES]
    figure, (axis, counts) = new_figure(width=4.6, height=5.6, rows=2, ratios=(3.0, 1.0))
    axis.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
    for question, colour in zip(shown, PALETTE, strict=False):
        x = [predicted for predicted, _, _ in question.bins]
        y = [seen for _, seen, _ in question.bins]
        if len(shown) == 1:
            low = [max(seen - interval[0], 0.0) for _, seen, interval in question.bins]
            high = [max(interval[1] - seen, 0.0) for _, seen, interval in question.bins]
            axis.errorbar(
                x, y, yerr=[low, high], color=colour, marker="o", markersize=4, capsize=2, label=question.name
            )
        else:
            axis.plot(x, y, color=colour, marker="o", markersize=4, label=question.name)
        edges = np.linspace(0, 1, _BARS + 1)
        counts.hist(question.probability, bins=edges.tolist(), histtype="step", color=colour)
    more = f", {len(shown)} of {len(questions)}" if len(questions) > len(shown) else ""
    title = "calibration, 95 % intervals" if len(shown) == 1 else f"calibration{more}"
    axis.set(title=title, xlabel="predicted probability", ylabel="share seen", ylim=(-0.02, 1.02))
    counts.set(xlabel="predicted probability", ylabel="samples", yscale="log")
    # Within a decade, the labels of minor ticks would overlap.
    counts.yaxis.set_minor_formatter(NullFormatter())
    counts.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    counts.set_ylim(0.7, None)
    for one in (axis, counts):
        one.set(xlim=(-0.02, 1.02))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=3)
    return save_figure(figure, folder, "calibration", formats=("png",))
