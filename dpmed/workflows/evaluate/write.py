"""The files of an evaluation: tables, pictures and one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpmed.data.identity import names_of
from dpmed.figures.confusion import plot_confusion
from dpmed.figures.evaluation import Question, plot_calibration, plot_thresholds
from dpmed.figures.report import Picture, Report, Table, write_report
from dpmed.files import write_csv, write_json
from dpmed.inference.predictor import Predictor
from dpmed.metrics import operating
from dpmed.metrics.classification import confusion
from dpmed.workflows.evaluate.scored import Scored
from dpmed.workflows.evaluate.summary import KEEP_INSIDE, EvaluateSettings, EvaluateSummary

METRICS = "metrics.json"
_SPECIFICITIES, _SENSITIVITIES = (0.9, 0.95, 0.99), (0.9, 0.95, 0.99)


def write_evaluation(
    summary: EvaluateSummary,
    scored: Scored,
    questions: Sequence[Question],
    settings: EvaluateSettings,
    calibrations: dict[str, tuple[operating.CalibrationBin, ...]],
) -> None:
    """Write all tables, pictures, `metrics.json` and the page.

    Args:
        summary: what was found.
        scored: the samples.
        questions: what was asked of each with yes or no.
        settings: of the operating points.
        calibrations: bins of each question.
    """
    folder, info = summary.folder, scored.dataset.info
    _write_predictions(scored, folder)
    columns = dict.fromkeys(name for row in summary.subgroups for name in row)
    write_csv(folder / "subgroups.csv", summary.subgroups, list(columns) or ["column", "value"])
    points = [row for question in questions for row in _points(question, scored.predictor, settings)]
    write_csv(folder / "operating_points.csv", points, list(points[0]) if points else ["question", "threshold"])
    rows = [
        {
            "question": name, "low": one.low, "high": one.high, "samples": one.samples,
            "mean_probability": one.mean_probability, "share_positive": one.share_positive,
            "share_low": one.interval[0], "share_high": one.interval[1],
        }
        for name, bins in calibrations.items()
        for one in bins
    ]  # fmt: skip
    write_csv(folder / "calibration.csv", rows, list(rows[0]) if rows else ["question", "low", "high"])
    pictures = []
    if questions:
        plot_thresholds(questions, folder)
        plot_calibration(questions, folder)
        pictures += [
            Picture(title="All thresholds", path=folder / "roc.png", caption="Left: ROC. Right: precision and recall."),
            Picture(
                title="Calibration",
                path=folder / "calibration.png",
                caption="On the dotted line, probabilities mean what they say.",
            ),
        ]
    if info.task == "classification":
        table = confusion(scored.predictions, scored.targets, classes=len(info.class_names))
        plot_confusion(table, info.class_names, folder)
        caption = "Rows are true classes, columns what the model says."
        pictures.append(Picture(title="Confusion", path=folder / "confusion.png", caption=caption))
    write_json(folder / METRICS, summary.to_json())
    _write_page(summary, scored, pictures, points)


def _write_predictions(scored: Scored, folder: Path) -> None:
    info, names = scored.dataset.info, names_of(scored.dataset)
    rows = []
    for place, number in enumerate(scored.numbers.tolist()):
        row: dict[str, Any] = {"sample": number if names is None else names[number]}
        if info.task == "classification" and scored.probabilities is not None:
            row["target"] = info.class_names[int(scored.targets[place])]
            row["prediction"] = info.class_names[int(np.argmax(scored.probabilities[place]))]
        if scored.probabilities is not None:
            for name, value in zip(info.output_names, scored.probabilities[place].tolist(), strict=True):
                row[f"probability_{name}"] = value
        if info.task == "multi-label":
            row |= {
                f"target_{name}": int(one) for name, one in zip(info.output_names, scored.targets[place], strict=True)
            }
        if info.task == "regression":
            for name, value, target in zip(
                info.output_names, scored.predictions[place].tolist(), scored.targets[place].tolist(), strict=True
            ):
                row |= {f"value_{name}": value, f"target_{name}": target}
        rows.append(row)
    write_csv(folder / "predictions.csv", rows, list(rows[0]) if rows else ["sample"])


def _points(question: Question, predictor: Predictor, settings: EvaluateSettings) -> list[dict[str, Any]]:
    probability, positive = question.probability, question.positive
    own = settings.threshold if settings.threshold is not None else predictor.description.threshold or 0.5
    thresholds = [("given" if settings.threshold is not None else "model", own)]
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
                "question": question.name, "rule": rule, "threshold": point.threshold,
                "sensitivity": point.sensitivity, "sensitivity_low": point.sensitivity_interval[0],
                "sensitivity_high": point.sensitivity_interval[1], "specificity": point.specificity,
                "specificity_low": point.specificity_interval[0], "specificity_high": point.specificity_interval[1],
                "ppv": point.ppv, "npv": point.npv, "ppv_at_prevalence_0.01": point.at_prevalence(0.01)[0],
                "ppv_at_prevalence_0.1": point.at_prevalence(0.1)[0],
            }
        )  # fmt: skip
    return rows


def _write_page(
    summary: EvaluateSummary, scored: Scored, pictures: Sequence[Picture], points: Sequence[dict[str, Any]]
) -> None:
    columns, rows = summary.table()
    sections: list[Picture | Table] = [Table(title="Metrics", columns=columns, rows=rows)]
    if points and len({row["question"] for row in points}) == 1:
        shown = ["rule", "threshold", "sensitivity", "specificity", "ppv", "npv"]
        note = "All are in operating_points.csv."
        sections.append(Table(title="Operating points", columns=shown, rows=_cells(points, shown), note=note))
    main = next(iter(summary.metrics), None)
    if summary.subgroups and main is not None:
        shown = ["column", "value", "units", main, f"{main}_low", f"{main}_high", f"{main}_gap"]
        cells = _cells(summary.subgroups, shown)
        sections.append(Table(title="Subgroups", columns=shown, rows=cells, note="All metrics are in subgroups.csv."))
    first = f"{main} is {summary.metrics[main]:.3f}" if main is not None else "No metric is defined for these data"
    if main in summary.intervals:
        low, high = summary.intervals[main]
        first += f" (95 % interval {low:.3f} to {high:.3f})"
    finding = f"{first}, on {summary.n_samples} samples of {summary.n_units} {summary.unit}s ({summary.part})."
    write_report(
        summary.folder / "report.html",
        Report(
            title=f"Evaluation of {scored.predictor.source.name} on {scored.dataset.info.name}",
            warning=KEEP_INSIDE,
            conclusion=finding,
            findings=summary.notes[1:],
            sections=[*sections, *pictures],
            explanation=(
                f"Intervals come from drawing {summary.unit}s with replacement, all samples of one together.",
                "ε of the training says nothing of these samples: what is computed here are exact numbers.",
            ),
        ),
    )


def _cells(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[list[str]]:
    def cell(value: Any) -> str:
        return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    return [[cell(row.get(name)) for name in columns] for row in rows]
