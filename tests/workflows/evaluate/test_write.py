"""The files of an evaluation, for each task, from made-up samples."""

import csv
import json

import numpy as np
import pytest

from dpmed.metrics.agreement import agreement
from dpmed.workflows.evaluate.comparison import compare_scored
from dpmed.workflows.evaluate.scored import join_units, subgroups_of
from dpmed.workflows.evaluate.summary import EvaluateSettings
from dpmed.workflows.evaluate.write import prediction_rows, write_evaluation
from tests.workflows.evaluate.scores import make_scored
from tests.workflows.evaluate.test_summary import TEMPERATURE, make_summary


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(scored, folder, *, settings=None, threshold=0.4, **changes):
    values, intervals = scored.evaluate()
    summary = make_summary(folder, metrics=values, intervals=intervals, **changes)
    write_evaluation(summary, scored, settings or EvaluateSettings(), threshold=threshold)
    return {path.name for path in folder.iterdir()}


ALWAYS = {"predictions.csv", "subgroups.csv", "operating_points.csv", "calibration.csv", "metrics.json", "report.html"}


def test_two_classes_have_points_calibration_curves_and_a_page(tmp_path):
    scored = make_scored()
    found = write(
        scored,
        tmp_path,
        subgroups=tuple(subgroups_of(scored, "sex")),
        comparison=compare_scored(scored, make_scored(seed=2)),
        temperature=TEMPERATURE,
    )
    pictures = {"roc.png", "calibration.png", "confusion.png", "comparison.png"}
    assert found == ALWAYS | pictures | {"comparison.csv", "delong.csv", "temperature.json"}
    page = (tmp_path / "report.html").read_text()
    for words in ("must stay within your institution", "Against model 2", "DeLong", "Subgroups", "not adjusted"):
        assert words in page
    assert "http://" not in page and "https://" not in page
    assert json.loads((tmp_path / "temperature.json").read_text())["temperature"] == 1.5
    differences = rows_of(tmp_path / "comparison.csv")
    assert {row["metric"] for row in differences} >= {"accuracy", "auroc", "brier"}
    assert float(rows_of(tmp_path / "delong.csv")[0]["standard_error"]) > 0


def test_thresholds_follow_their_rules(tmp_path):
    scored = make_scored(skill=2.0)
    write(scored, tmp_path, settings=EvaluateSettings(sensitivity=0.8, threshold=0.3))
    points = {row["rule"]: row for row in rows_of(tmp_path / "operating_points.csv")}
    assert set(points) == {"given", "sensitivity 0.8", *(f"specificity {share}" for share in (0.9, 0.95, 0.99))}
    chance, truth = scored.probabilities[:, 1], scored.targets == 1
    assert float(points["given"]["threshold"]) == 0.3
    assert float(points["given"]["sensitivity"]) == pytest.approx((chance[truth] >= 0.3).mean())
    assert float(points["sensitivity 0.8"]["sensitivity"]) >= 0.8
    assert float(points["specificity 0.95"]["specificity"]) >= 0.95
    write(scored, tmp_path)
    points = {row["rule"]: row for row in rows_of(tmp_path / "operating_points.csv")}
    assert float(points["model"]["threshold"]) == 0.4 and "sensitivity 0.99" in points


def test_of_more_than_two_classes_no_threshold_is_called_the_models(tmp_path):
    """The model answers with the likeliest class, whatever its probability."""
    write(make_scored(classes=3), tmp_path, threshold=None)
    rules = {row["rule"] for row in rows_of(tmp_path / "operating_points.csv")}
    assert "probability 0.5" in rules and "model" not in rules


def test_predictions_are_a_row_per_sample_of_each_task(tmp_path):
    scored = make_scored(classes=3)
    row = prediction_rows(scored)[7]
    assert row["sample"] == "image 7" and row["target"] == f"class {scored.targets[7]}"
    assert row["prediction"] == f"class {scored.probabilities[7].argmax()}"
    labels = make_scored("multi-label")
    row = prediction_rows(labels)[int(np.flatnonzero(labels.targets[:, 1] < 0)[0])]
    assert row["target_nodule"] is None
    joined = prediction_rows(join_units(scored, "mean"))
    assert len(joined) == 40 and joined[0]["sample"] == "p000" and joined[0]["images"] == 3


def test_numbers_have_their_agreement(tmp_path):
    scored = make_scored("regression")
    found = agreement(scored.predictions[:, 0], scored.targets[:, 0], groups=scored.groups, resamples=5)
    assert write(scored, tmp_path, agreement={"age": found}) == ALWAYS | {"agreement.csv", "agreement.png"}
    (row,) = rows_of(tmp_path / "agreement.csv")
    assert float(row["bias"]) == pytest.approx((scored.predictions - scored.targets).mean())
    assert "Agreement" in (tmp_path / "report.html").read_text()


def test_masks_have_a_row_of_scores_each_and_no_curves(tmp_path):
    scored = make_scored("segmentation")
    scored.table["dice"][3] = np.nan
    assert write(scored, tmp_path, tolerance="2 mm") == ALWAYS
    rows = rows_of(tmp_path / "predictions.csv")
    assert rows[3]["dice"] == "" and float(rows[4]["dice"]) == scored.table["dice"][4]
    assert "tolerance of 2 mm" in (tmp_path / "report.html").read_text()


def test_markup_in_names_stays_text(tmp_path):
    scored = make_scored()
    object.__setattr__(scored, "model", "<script>alert(1)</script>")
    write(scored, tmp_path)
    assert "<script>" not in (tmp_path / "report.html").read_text()
