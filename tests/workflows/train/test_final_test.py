"""What is written about a test split follows from its predictions: by class, by sample, by a column."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from dpmed.config.load import load_config
from dpmed.data.base import Info, Split
from dpmed.data.storage.stored import ArrayDataset, Listing
from dpmed.planning.plan import make_plan
from dpmed.progress import Silent
from dpmed.training.evaluate import Predictions
from dpmed.workflows.train.final_test import interval_notes, write_test

NUMBERS = np.array([4, 1, 7, 2])


@pytest.fixture(scope="module")
def digits():
    settings = ["data.limit=100", "training.batch_size=20", "training.epochs=1", "model.width=[4]"]
    return make_plan(load_config("quickstart", settings).config, Silent())


def plan_of(digits, task, names, *, break_down_by=None):
    """A plan whose data have another task; scoring uses only their constants, columns and split."""
    settings = ["evaluation.bootstrap=50"] + ([f"evaluation.break_down_by={break_down_by}"] if break_down_by else [])
    sites = ("a", "b", "a", "b", "a", "b", "a", "")
    listing = Listing(labels=None, groups=tuple("01234567"), columns={"site": sites})
    shape = (2, 2, 1) if task == "segmentation" else (1, 1, 1)
    info = Info(
        name="made up", task=task, input_shape=shape, class_names=names, scale=1.0, mean=(0.0,), std=(1.0,),
        unit="image",
    )  # fmt: skip
    dataset = ArrayDataset(info, listing, inputs=np.zeros((8, *shape), np.float32), targets=np.zeros(8, np.int32))
    none = np.zeros(0, np.int64)
    return replace(
        digits,
        config=load_config("quickstart", settings).config,
        dataset=dataset,
        split=Split(train=none, validation=none, test=NUMBERS),
    )


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture
def classified():
    # Predicted 0, 1, 1, 1 where 0, 1, 0, 1 is true.
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [0.0, 3.0], [1.0, 2.0]], np.float32)
    losses = np.array([0.5, 0.25, 2.0, 0.25], np.float32)
    return Predictions(predictions=logits, targets=np.array([0, 1, 0, 1], np.int32), losses=losses)


def test_classes_are_counted_and_drawn(tmp_path, digits, classified):
    scores, intervals = write_test(plan_of(digits, "classification", ("no", "yes")), classified, tmp_path)
    assert scores["loss"] == 0.75
    assert scores["accuracy"] == 0.75
    assert intervals == {}, "of four images"
    assert rows_of(tmp_path / "confusion.csv") == [
        {"class": "no", "no": "1", "yes": "1"}, {"class": "yes", "no": "0", "yes": "2"},
    ]  # fmt: skip
    assert [row["class"] for row in rows_of(tmp_path / "classes.csv")][:2] == ["no", "yes"]
    assert (tmp_path / "confusion.png").exists()


def test_a_column_breaks_the_metrics_down_and_what_it_leaves_empty_is_unknown(tmp_path, digits, classified):
    write_test(plan_of(digits, "classification", ("no", "yes"), break_down_by="site"), classified, tmp_path)
    rows = {row["site"]: row for row in rows_of(tmp_path / "breakdown.csv")}
    # Samples 4 and 2 are from site a, 1 from b, 7 from an unknown site.
    assert {site: (row["samples"], float(row["accuracy"])) for site, row in rows.items()} == {
        "a": ("2", 1.0), "b": ("1", 1.0), "unknown": ("1", 0.0),
    }  # fmt: skip
    assert float(rows["a"]["loss"]) == 0.375


def test_few_units_have_no_intervals_and_that_is_said(digits):
    plan = plan_of(digits, "classification", ("no", "yes"))
    targets = np.arange(20) % 2
    twenty = Predictions(predictions=np.eye(2)[targets], targets=targets, losses=np.zeros(20))
    assert interval_notes(plan, twenty, {}, {}) == (
        "The test split has 4 images: too few for intervals of its metrics.",
    )
    assert interval_notes(replace(plan, split=replace(plan.split, test=np.arange(8))), twenty, {}, {}) != ()
    known, few = {"accuracy": (0.8, 1.0)}, "The test split has only 20 images: the intervals say little."
    assert interval_notes(digits, twenty, {"accuracy": 0.9}, known) == (few,), "twenty of a hundred digits"
    more = replace(digits, split=replace(digits.split, test=np.arange(30)))
    assert interval_notes(more, twenty, {"accuracy": 0.9}, known) == ()
    _, note = interval_notes(digits, twenty, {"accuracy": 1.0, "mcc": 1.0, "loss": 0.1}, {})
    # Twenty right answers: 1 - 0.05^(1/20).
    assert note.startswith("No interval for accuracy, mcc: ") and "20 images" in note and "up to 14 %" in note
    targets[0] = 1
    _, note = interval_notes(digits, twenty, {"accuracy": 0.9, "mcc": 0.9}, known)
    assert note.startswith("No interval for mcc: fewer than 10 images have one of the classes")


def test_each_part_of_a_breakdown_has_intervals_by_unit_where_it_has_enough_units(tmp_path, digits):
    plan = plan_of(digits, "classification", ("no", "yes"), break_down_by="site")
    # Sixty samples: 48 of 12 patients of site a, four each, and 12 of two patients of site b.
    groups = [f"a{number % 12}" for number in range(48)] + [f"b{number % 2}" for number in range(12)]
    listing = Listing(labels=None, groups=tuple(groups), columns={"site": tuple(name[0] for name in groups)})
    inputs, targets = np.zeros((60, 1, 1, 1), np.float32), np.zeros(60, np.int32)
    dataset = ArrayDataset(plan.dataset.info, listing, inputs=inputs, targets=targets)
    right = np.arange(60) % 12 < 8
    logits = np.where(right[:, None], np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])).astype(np.float32)
    result = Predictions(predictions=logits, targets=targets, losses=np.ones(60, np.float32))
    write_test(replace(plan, dataset=dataset, split=replace(plan.split, test=np.arange(60))), result, tmp_path)
    first, second = rows_of(tmp_path / "breakdown.csv")
    assert (first["site"], first["samples"], first["units"]) == ("a", "48", "12")
    low, high = float(first["accuracy_low"]), float(first["accuracy_high"])
    # A patient is always right or never: a share of 8/12 varies as for 12 tosses, not as for 48.
    width = 2 * 1.96 * (8 / 12 * 4 / 12 / 12) ** 0.5
    assert low < 8 / 12 < high and abs((high - low) - width) < 0.35 * width
    assert (second["units"], second["accuracy_low"], second["accuracy_high"]) == ("2", "", "")


def test_segmentation_has_a_row_per_scan_and_leaves_a_class_that_nobody_sees_empty(tmp_path, digits):
    target = np.zeros((4, 2, 2), np.uint8)
    target[0, 0, 0] = target[1, 0, 0] = 1
    predicted = target.copy()
    predicted[1, 0, 1] = 1
    result = Predictions(predictions=predicted, targets=target, losses=np.arange(4, dtype=np.float32))
    scores, _ = write_test(plan_of(digits, "segmentation", ("background", "organ")), result, tmp_path)
    rows = rows_of(tmp_path / "test_samples.csv")
    assert [row["sample"] for row in rows] == ["4", "1", "7", "2"]
    column = next(name for name in rows[0] if name.startswith("dice") and "organ" in name)
    # One correct pixel, with two predicted and one true: 2·1 / (2 + 1).
    assert [row[column] and round(float(row[column]), 4) for row in rows] == [1.0, round(2 / 3, 4), "", ""]
    assert scores["loss"] == 1.5
