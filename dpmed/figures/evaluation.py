"""An evaluation in pictures: ROC and precision-recall curves, and how far probabilities can be believed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from dpmed.figures.style import PALETTE, new_figure, save_figure

_MOST_LINES = 7


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """One class against the rest, or one label.

    Attributes:
        name: of it.
        probability: of each sample.
        positive: the truth.
        bins: predicted and seen, with the interval of what was seen.
    """

    name: str
    probability: Float[np.ndarray, " sample"]
    positive: Bool[np.ndarray, " sample"]
    bins: Sequence[tuple[float, float, tuple[float, float]]]


def plot_thresholds(questions: Sequence[Question], folder: Path) -> list[Path]:
    """Draw `roc.png`: sensitivity against 1 - specificity, and precision against sensitivity, over all thresholds."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    figure, (roc, pr) = new_figure(width=7.4, height=3.6, columns=2)
    for question, colour in zip(questions[:_MOST_LINES], PALETTE, strict=False):
        if question.positive.all() or not question.positive.any():
            continue
        false_alarms, found, _ = roc_curve(question.positive, question.probability)
        roc.plot(false_alarms, found, color=colour, label=question.name)
        precision, recall, _ = precision_recall_curve(question.positive, question.probability)
        pr.plot(recall, precision, color=colour)
    roc.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
    roc.set(title="ROC", xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    pr.set(title="precision and recall", xlabel="sensitivity (recall)", ylabel="PPV (precision)")
    pr.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    if roc.get_legend_handles_labels()[0]:
        figure.legend(*roc.get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=4)
    return save_figure(figure, folder, "roc", formats=("png",))


def plot_calibration(questions: Sequence[Question], folder: Path) -> list[Path]:
    """Draw `calibration.png`: what was seen against what was predicted, which on the diagonal agree."""
    figure, (axis,) = new_figure(width=4.4, height=4.2)
    axis.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
    for question, colour in zip(questions[:_MOST_LINES], PALETTE, strict=False):
        x = [predicted for predicted, _, _ in question.bins]
        y = [seen for _, seen, _ in question.bins]
        low = [max(seen - interval[0], 0.0) for _, seen, interval in question.bins]
        high = [max(interval[1] - seen, 0.0) for _, seen, interval in question.bins]
        axis.errorbar(x, y, yerr=[low, high], color=colour, marker="o", markersize=3, capsize=2, label=question.name)
    axis.set(title="calibration, 95 % intervals", xlabel="predicted probability", ylabel="share seen")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    figure.legend(loc="outside lower center", frameon=False, ncols=3)
    return save_figure(figure, folder, "calibration", formats=("png",))
