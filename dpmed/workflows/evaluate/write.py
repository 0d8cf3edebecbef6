"""The files of an evaluation: tables, pictures and one page."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dpmed.figures.agreement import AgreementPanel, plot_agreement
from dpmed.figures.confusion import plot_confusion
from dpmed.figures.evaluation import Question, plot_calibration, plot_thresholds
from dpmed.figures.forest import Panel, plot_forest
from dpmed.figures.report import Picture
from dpmed.files import write_csv, write_json
from dpmed.metrics import operating
from dpmed.metrics.classification import confusion
from dpmed.workflows.evaluate.comparison import DIFFERENCE_COLUMNS, Comparison
from dpmed.workflows.evaluate.page import write_page
from dpmed.workflows.evaluate.scored import Scored, questions_of
from dpmed.workflows.evaluate.summary import AGREEMENT_COLUMNS, EvaluateSettings, EvaluateSummary, agreement_rows

METRICS = "metrics.json"
_HALF = 0.5
_SPECIFICITIES, _SENSITIVITIES = (0.9, 0.95, 0.99), (0.9, 0.95, 0.99)


def write_evaluation(
    summary: EvaluateSummary, scored: Scored, settings: EvaluateSettings, *, threshold: float | None
) -> None:
    """Write all tables, pictures, `metrics.json` and the page.

    Args:
        summary: what was found.
        scored: the samples.
        settings: give sensitivity and threshold of the operating points.
        threshold: the model's own, if it has one.
    """
    folder, questions = summary.folder, questions_of(scored)
    rows = prediction_rows(scored)
    write_csv(folder / "predictions.csv", rows, None if rows else ["sample"])
    write_csv(folder / "subgroups.csv", summary.subgroups, None if summary.subgroups else ["column", "value"])
    points = [row for question in questions for row in _points(question, settings, threshold)]
    write_csv(folder / "operating_points.csv", points, None if points else ["question", "threshold"])
    bins = calibration_rows(questions)
    write_csv(folder / "calibration.csv", bins, None if bins else ["question", "low", "high"])
    if summary.temperature is not None:
        write_json(folder / "temperature.json", summary.temperature.to_json())
    if summary.agreement:
        write_csv(folder / "agreement.csv", agreement_rows(summary.agreement), list(AGREEMENT_COLUMNS))
    if summary.comparison is not None:
        write_csv(folder / "comparison.csv", summary.comparison.rows(), list(DIFFERENCE_COLUMNS))
        if summary.comparison.areas:
            tests = summary.comparison.delong_rows()
            write_csv(folder / "delong.csv", tests)
    pictures = _pictures(summary, scored, questions)
    write_json(folder / METRICS, summary.to_json())
    write_page(summary, scored, pictures, points)


def calibration_rows(questions: Sequence[Question]) -> list[dict[str, Any]]:
    """A row per bin of each question."""
    return [
        {
            "question": question.name, "low": one.low, "high": one.high, "samples": one.samples,
            "mean_probability": one.mean_probability, "share_positive": one.share_positive,
            "share_low": one.interval[0], "share_high": one.interval[1],
        }
        for question in questions
        for one in operating.calibration(question.probability, question.positive)
    ]  # fmt: skip


def prediction_rows(scored: Scored) -> list[dict[str, Any]]:
    """A row per sample, or per unit where images are joined."""
    rows = []
    for place, name in enumerate(scored.names):
        row: dict[str, Any] = {"sample": name}
        if scored.images is not None:
            row["images"] = int(scored.images[place])
        if scored.table is not None:
            # An undefined score leaves its cell empty.
            row |= {key: float(one[place]) if np.isfinite(one[place]) else None for key, one in scored.table.items()}
        else:
            row |= _answers(scored, place)
        rows.append(row)
    return rows


def _answers(scored: Scored, place: int) -> dict[str, Any]:
    names, chances = scored.info.output_names, scored.probabilities
    values, targets = scored.answers
    row: dict[str, Any] = {}
    if chances is None:
        for name, value, target in zip(names, values[place].tolist(), targets[place].tolist(), strict=True):
            row |= {f"value_{name}": value, f"target_{name}": target if np.isfinite(target) else None}
        return row
    if scored.info.task == "classification":
        row["target"] = names[int(targets[place])]
        row["prediction"] = names[int(np.argmax(chances[place]))]
    row |= {f"probability_{name}": value for name, value in zip(names, chances[place].tolist(), strict=True)}
    if scored.info.task == "multi-label":
        row |= {
            f"target_{name}": int(one) if one >= 0 else None for name, one in zip(names, targets[place], strict=True)
        }
    return row


def _pictures(summary: EvaluateSummary, scored: Scored, questions: Sequence[Question]) -> list[Picture]:
    folder, info, pictures = summary.folder, scored.info, []
    if summary.comparison is not None and summary.comparison.differences:
        heading = f"difference from {summary.comparison.against}"
        plot_forest(_panels(summary.comparison), folder, "comparison", heading=heading, formats=("png",))
        caption = (
            f"Differences from {summary.comparison.against}, with 95 % intervals. Right of the dashed line the value "
            "is larger; a filled dot marks an interval that excludes 0."
        )
        pictures.append(Picture(title="Differences", path=folder / "comparison.png", caption=caption))
    if questions:
        plot_thresholds(questions, folder)
        plot_calibration(questions, folder)
        caption = "Left: ROC; dotted: guessing. Right: precision and recall" + (
            "; dotted: the share of positives."
            if len(questions) == 1
            else ". Of many curves, those with the smallest AUROC are drawn."
        )
        pictures.append(Picture(title="All thresholds", path=folder / "roc.png", caption=caption))
        caption = (
            "On the dotted line, probabilities are perfectly calibrated. Hollow dots, not joined to the others, stand "
            "for fewer than ten samples. Below: how many samples have each probability."
        )
        pictures.append(Picture(title="Calibration", path=folder / "calibration.png", caption=caption))
    if info.task == "classification":
        table = confusion(*scored.answers, classes=len(info.class_names))
        plot_confusion(table, info.class_names, folder, title=summary.what.replace(", ", "\n"))
        caption = "Rows are true classes, columns predicted ones."
        pictures.append(Picture(title="Confusion", path=folder / "confusion.png", caption=caption))
    if summary.agreement:
        plot_agreement(_agreement_panels(summary, scored), folder)
        caption = (
            "Each dot is a sample. Solid: bias; dashed: limits for 95 % of the differences; bands: 95 % intervals."
        )
        pictures.append(Picture(title="Agreement (Bland-Altman)", path=folder / "agreement.png", caption=caption))
    return pictures


def _panels(comparison: Comparison) -> list[Panel]:
    return [
        Panel(
            title=one.metric,
            labels=[comparison.model],
            values=[one.difference],
            intervals=[one.interval],
            is_difference=True,
        )
        for one in comparison.differences
    ]


def _agreement_panels(summary: EvaluateSummary, scored: Scored) -> list[AgreementPanel]:
    panels = []
    values, targets = scored.answers
    for name, one in summary.agreement.items():
        place = scored.info.target_names.index(name)
        known = np.isfinite(targets[:, place])
        places = (("upper limit", "high"), ("bias", "bias"), ("lower limit", "low"))
        panels.append(
            AgreementPanel(
                name=name,
                values=values[known, place],
                targets=targets[known, place],
                lines=[(label, getattr(one, key), one.intervals[key]) for label, key in places],
            )
        )
    return panels


def _points(question: Question, settings: EvaluateSettings, own: float | None) -> list[dict[str, Any]]:
    probability, positive = question.probability, question.positive
    given = settings.threshold
    # Of more than two classes the model answers with the likeliest, whatever its probability: no threshold is its own.
    usual = (f"probability {_HALF:g}", _HALF) if own is None else ("model", own)
    thresholds = [usual if given is None else ("given", given)]
    wanted = _SENSITIVITIES if settings.sensitivity is None else (settings.sensitivity,)
    for share in wanted:
        name = f"sensitivity {share:g}"
        thresholds.append((name, operating.threshold_for_sensitivity(probability, positive, share)))
    for share in _SPECIFICITIES:
        name = f"specificity {share:g}"
        thresholds.append((name, operating.threshold_for_specificity(probability, positive, share)))
    rows = []
    for rule, threshold in thresholds:
        point = operating.operating_point(probability, positive, threshold)
        rows.append(
            {
                "question": question.name, "auroc": None if np.isnan(question.auroc) else question.auroc,
                "rule": rule, "threshold": point.threshold,
                "sensitivity": point.sensitivity, "sensitivity_low": point.sensitivity_interval[0],
                "sensitivity_high": point.sensitivity_interval[1], "specificity": point.specificity,
                "specificity_low": point.specificity_interval[0], "specificity_high": point.specificity_interval[1],
                "ppv": point.ppv, "npv": point.npv, "ppv_at_prevalence_0.01": point.at_prevalence(0.01)[0],
                "ppv_at_prevalence_0.1": point.at_prevalence(0.1)[0],
            }
        )  # fmt: skip
    return rows
