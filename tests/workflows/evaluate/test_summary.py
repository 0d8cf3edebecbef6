"""How an evaluation is summarised: JSON, text and the terminal's table."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpmed.files import to_json
from dpmed.metrics.agreement import agreement
from dpmed.workflows.evaluate.comparison import compare_scored
from dpmed.workflows.evaluate.predict import Temperature
from dpmed.workflows.evaluate.summary import KEEP_INSIDE, EvaluateSummary, agreement_rows
from tests.workflows.evaluate.scores import make_scored


def make_summary(folder=Path("out"), **changes):
    facts = {
        "metrics": {"accuracy": 0.75, "auroc": 0.8},
        "intervals": {"accuracy": (0.7, 0.8)},
        "n_samples": 120,
        "n_units": 40,
        "n_images": 120,
        "unit": "patient",
        "by": "image",
        "part": "test",
        "subgroups": (),
        "notes": (KEEP_INSIDE,),
        **changes,
    }
    return EvaluateSummary(folder=folder, **facts)


TEMPERATURE = Temperature(
    value=1.5, samples=20, units=7, unit="patient", data="digits", loss_before=0.9, loss_after=0.8
)


def test_the_json_has_what_the_contract_names_and_nothing_that_was_not_done():
    found = json.loads(to_json(make_summary().to_json()))
    assert found["metrics"]["accuracy"] == 0.75 and found["intervals"] == {"accuracy": [0.7, 0.8]}
    assert (found["n_samples"], found["n_units"]) == (120, 40)
    assert found["comparison"] is None and found["temperature"] is None and found["uses_of_data"] == []
    assert found["agreement"] == []


def test_what_was_evaluated_counts_images_once_where_each_stands_for_itself():
    assert make_summary().what == "120 samples of 40 patients (test)"
    assert make_summary(unit="image", n_units=120).what == "120 images (test)"
    assert make_summary(unit="image", n_units=1, n_samples=1, n_images=1).what == "1 image (test)"


def test_a_temperature_is_a_use_of_data_by_name_and_number():
    found = make_summary(temperature=TEMPERATURE).to_json()
    assert found["temperature"] == 1.5
    (use,) = found["uses_of_data"]
    assert "validation split of digits" in use and "20 samples (7 patients)" in use and "does not cover" in use
    assert TEMPERATURE.to_json()["fitted_on"]["n_units"] == 7


def test_a_comparison_is_in_the_json():
    comparison = compare_scored(make_scored(seed=1), make_scored(seed=2))
    found = json.loads(to_json(make_summary(comparison=comparison).to_json()))["comparison"]
    assert found["against"] == "model 2"
    assert {"metric", "difference", "difference_low", "difference_high"} <= set(found["differences"][0])
    assert 0 <= found["delong"][0]["p_value"] <= 1


def test_joined_images_are_said_to_be():
    assert make_summary().what == "120 samples of 40 patients (test)"
    joined = make_summary(n_samples=40, by="patient, mean of its images")
    assert joined.what == "40 patients (test), joined from 120 images"


def test_a_metric_without_an_interval_has_an_empty_cell():
    columns, rows = make_summary().table()
    assert columns[2] == "95 % interval, by patient"
    assert rows == [["accuracy", "0.7500", "0.7000 to 0.8000"], ["auroc", "0.8000", ""]]


def test_limits_of_agreement_are_a_row_with_their_intervals():
    values = np.array([1.0, 2.0, 4.0, 3.0])
    one = agreement(values, np.zeros(4), groups=["a", "b", "c", "d"], resamples=0)
    (row,) = agreement_rows({"age": replace(one, intervals={**one.intervals, "high": (3.0, 4.0)})})
    assert row["bias"] == pytest.approx(2.5) and np.isnan(row["bias_low"]) and np.isnan(row["bias_high"])
    assert row["lower_limit"] == pytest.approx(2.5 - 1.96 * values.std(ddof=1))
    assert (row["upper_limit_low"], row["upper_limit_high"]) == (3.0, 4.0)


def test_subgroups_are_shown_with_the_first_metric_and_no_interval_where_there_is_none():
    rows = (
        {"column": "sex", "value": "female", "units": 30, "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6},
        {"column": "sex", "value": "male", "units": 3, "accuracy": 1.0, "accuracy_low": np.nan},
        {"column": "sex", "value": "unknown", "units": 1},
    )
    columns, shown = make_summary(subgroups=rows).subgroup_table()
    assert columns == ["subgroup", "patients", "accuracy", "95 % interval"]
    assert shown == [
        ["sex = female", "30", "0.5000", "0.4000 to 0.6000"],
        ["sex = male", "3", "1.0000", ""],
        ["sex = unknown", "1", "", ""],
    ]
