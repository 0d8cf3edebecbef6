"""The page of an evaluation."""

import math
from collections.abc import Sequence
from typing import Any

from dpmed.figures.report import Picture, Report, Table, write_report
from dpmed.workflows.evaluate.comparison import delong_table, say, table_of
from dpmed.workflows.evaluate.scored import Scored
from dpmed.workflows.evaluate.summary import KEEP_INSIDE, EvaluateSummary, agreement_rows


def write_page(
    summary: EvaluateSummary, scored: Scored, pictures: Sequence[Picture], points: Sequence[dict[str, Any]]
) -> None:
    """Write `report.html`.

    Args:
        summary: what was found.
        scored: the samples.
        pictures: the pictures drawn.
        points: rows of operating_points.csv.
    """
    columns, rows = summary.table()
    note = "" if summary.tolerance is None else f"Surface Dice uses a tolerance of {summary.tolerance}."
    summary_table = Table(title="Metrics", columns=columns, rows=rows, note=note)
    sections: list[Picture | Table] = []
    main = next(iter(summary.metrics), None)
    first = f"{main} is {summary.metrics[main]:.3f}" if main is not None else "No metric is defined for these data"
    if main in summary.intervals:
        low, high = summary.intervals[main]
        first += f" (95 % interval {low:.3f} to {high:.3f})"
    findings: list[str] = []
    if summary.comparison is not None:
        findings.append(say(summary.comparison, main))
        sections += _comparison(summary)
    is_single = len({row["question"] for row in points}) == 1
    if is_single:
        sections.append(_operating_points(points))
    if summary.subgroups and main is not None:
        sections.append(_subgroups(summary, main))
    if summary.agreement:
        shown = ["target", "samples", "bias", "bias_low", "bias_high", "lower_limit", "upper_limit"]
        note = (
            "Predicted - true, in the target's unit; 95 % of normally distributed differences lie between the limits."
        )
        rows = _cells(agreement_rows(summary.agreement), shown)
        sections.append(Table(title="Agreement", columns=shown, rows=rows, note=note))
    appendix = [_operating_points(points)] if scored.info.task == "multi-label" and points and not is_single else []
    write_report(
        summary.folder / "report.html",
        Report(
            title=f"Evaluation of {scored.model} on {scored.info.name}",
            warning=KEEP_INSIDE,
            conclusion=f"{first}, on {summary.what}.",
            summary=summary_table,
            explanation=_explanation(summary),
            findings=(*findings, *summary.notes[1:]),
            sections=[*sections, *pictures],
            appendix=appendix,
        ),
    )


def _subgroups(summary: EvaluateSummary, main: str) -> Table:
    columns, rows = summary.subgroup_table()
    gaps = _cells(summary.subgroups, [f"{main}_gap", f"{main}_visible_gap"])
    return Table(
        title="Subgroups",
        columns=[*columns, "gap", "visible gap"],
        rows=[[*row, *gap] for row, gap in zip(rows, gaps, strict=True)],
        note=f"Gap: {main} of the subgroup minus that of all others. Visible gap: with so few {summary.unit}s, a "
        "smaller one could not be told from chance. All metrics are in subgroups.csv.",
    )


def _operating_points(points: Sequence[dict[str, Any]]) -> Table:
    shown = ["rule", "threshold", "sensitivity", "specificity", "ppv", "npv"]
    rows = _cells(points, shown)
    if len({row["question"] for row in points}) > 1:
        shown = ["label", *shown]
        rows = [[str(point["question"]), *row] for point, row in zip(points, rows, strict=True)]
    note = "Intervals, and PPV at a prevalence of 1 % and 10 %, are in operating_points.csv."
    return Table(title="Operating points", columns=shown, rows=rows, note=note)


def _comparison(summary: EvaluateSummary) -> list[Table]:
    if summary.comparison is None:
        return []
    columns, rows = table_of(summary.comparison)
    note = f"In every resampling the same {summary.unit}s are drawn for both models."
    tables = [Table(title=f"Against {summary.comparison.against}", columns=columns, rows=rows, note=note)]
    if summary.comparison.areas:
        names, cells = delong_table(summary.comparison)
        note = f"By DeLong's test, with samples grouped by {summary.unit}; p is not adjusted for multiple tests."
        tables.append(Table(title="AUROC compared", columns=list(names), rows=cells, note=note))
    return tables


def _explanation(summary: EvaluateSummary) -> tuple[str, ...]:
    return (
        f"Intervals come from drawing {summary.unit}s with replacement, each with all its samples.",
        "The ε of the training says nothing about these samples: the numbers here are exact.",
    )


def _cells(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[list[str]]:
    def cell(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.4g}" if math.isfinite(value) else "–"
        return "–" if value is None else str(value)

    return [[cell(row.get(name)) for name in columns] for row in rows]
