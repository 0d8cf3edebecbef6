"""Metrics, intervals and subgroups of scored samples; the images of a patient joined, against slow loops."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, brier_score_loss, roc_auc_score

from dpmed.errors import InputError
from dpmed.workflows.evaluate.scored import join_units, places_of, questions_of, subgroups_of
from tests.workflows.evaluate.scores import make_info, make_scored


def test_metrics_are_scikit_learns_and_lie_in_their_intervals():
    scored = make_scored()
    values, intervals = scored.evaluate()
    chance = scored.probabilities[:, 1]
    assert values["accuracy"] == pytest.approx(accuracy_score(scored.targets, chance > 0.5))
    assert values["auroc"] == pytest.approx(roc_auc_score(scored.targets, chance), abs=1e-9)
    assert values["auprc"] == pytest.approx(average_precision_score(scored.targets, chance), abs=1e-9)
    assert values["brier"] == pytest.approx(brier_score_loss(scored.targets, chance), abs=1e-9)
    # Resampling makes the calibration error larger: its interval would not hold that of a calibrated model.
    assert set(intervals) == set(values) - {"ece"}
    assert all(low <= values[name] <= high for name, (low, high) in intervals.items())


def test_metrics_that_rest_on_few_patients_have_no_interval():
    rare = make_scored()
    targets = np.zeros(120, np.int32)
    targets[:27] = 1
    rare = replace(rare, targets=targets)
    assert set(rare.evaluate()[1]) == {"accuracy", "brier"}, "nine patients, three images each"
    targets[27] = 1
    assert {"auroc", "auprc", "mcc"} <= set(replace(rare, targets=targets).evaluate()[1])
    table = {"dice": np.full(120, 0.5) + np.arange(120) % 2 / 10, "dice_organ": np.where(targets, 0.1, np.nan)}
    table["dice_organ"][:27:3] = 0.2
    table["dice_organ"][27] = np.nan
    assert set(replace(make_scored("segmentation"), table=table).evaluate()[1]) == {"dice"}


def test_two_models_on_the_same_samples_have_the_same_units_drawn():
    one, other = make_scored(seed=1), make_scored(seed=2)
    perfect = [replace(scored, predictions=np.eye(2)[scored.targets] * 9) for scored in (one, other)]
    for name, column in perfect[0].draws().items():
        if name in ("accuracy", "auroc", "mcc"):
            np.testing.assert_array_equal(column, perfect[1].draws()[name])
    # In blocks or at once, the number of resamplings is the one asked for.
    assert {len(column) for column in one.draws().values()} == {60}


def test_scores_of_single_samples_are_averaged_and_undefined_ones_left_out():
    scored = make_scored("segmentation")
    dice = np.where(np.arange(120) == 5, np.nan, 0.5)
    table = {"dice": dice, "other": dice + np.arange(120) % 2 / 10, "never": np.full(120, np.nan)}
    values, intervals = replace(scored, table=table).evaluate()
    assert values == {"dice": pytest.approx(0.5), "other": pytest.approx(0.55, abs=1e-3)}
    # What is the same in all resamples has no interval.
    assert set(intervals) == {"other"}


@pytest.mark.parametrize("how", ["mean", "max"])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_images_of_a_patient_become_one_answer(how, classes):
    scored = make_scored(classes=classes)
    joined = join_units(scored, how)
    for place, name in enumerate(joined.names):
        rows = [row for row, group in enumerate(scored.groups) if group == name]
        chances = [scored.probabilities[row] for row in rows]
        if how == "mean":
            wanted = np.sum(chances, axis=0) / len(rows)
        elif classes == 2:
            second = max(one[1] for one in chances)
            wanted = np.array([1 - second, second])
        else:
            wanted = np.array([max(one[number] for one in chances) for number in range(classes)])
            wanted = wanted / wanted.sum()
        np.testing.assert_allclose(joined.probabilities[place], wanted)
        assert joined.targets[place] == scored.targets[rows[0]] and joined.images[place] == len(rows)
    # The logits that metrics are computed from have exactly these probabilities.
    powers = np.exp(joined.predictions)
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), joined.probabilities)
    assert joined.units == len(joined.names) == 40
    if classes == 2:
        wanted = roc_auc_score(joined.targets, joined.probabilities[:, 1])
        assert joined.values()["auroc"] == pytest.approx(wanted, abs=1e-9)


def test_of_two_classes_a_patient_is_positive_with_any_image():
    scored = make_scored(patients=10)
    targets = np.zeros(30, np.int32)
    targets[4] = 1
    assert np.flatnonzero(join_units(replace(scored, targets=targets), "mean").targets).tolist() == [1]


def test_of_more_classes_a_patient_must_have_one():
    scored = make_scored(classes=3)
    targets = scored.targets.copy()
    targets[0], targets[1] = 0, 1
    with pytest.raises(InputError, match="'p000' has images of different classes"):
        join_units(replace(scored, targets=targets), "mean")


def test_labels_are_positive_with_any_image_and_unknown_where_one_is_and_none_positive():
    scored = make_scored("multi-label", patients=3)
    targets = np.array([[0, 1], [0, -1], [1, 0], [0, -1], [0, 0], [0, 0], [-1, 0], [-1, 0], [-1, 0]], np.int8)
    joined = join_units(replace(scored, targets=targets), "max")
    assert joined.targets.tolist() == [[1, 1], [0, -1], [-1, 0]]
    np.testing.assert_allclose(joined.probabilities[0], scored.probabilities[:3].max(axis=0))
    np.testing.assert_allclose(1 / (1 + np.exp(-joined.predictions)), joined.probabilities)


def test_numbers_are_averaged_and_other_tasks_refused():
    scored = make_scored("regression")
    joined = join_units(scored, "mean")
    assert joined.predictions[0, 0] == pytest.approx(scored.predictions[:3, 0].mean())
    for task, how in (("regression", "max"), ("segmentation", "mean")):
        with pytest.raises(InputError, match="has no meaning"):
            join_units(make_scored(task), how)


def test_a_column_that_differs_within_a_patient_says_so():
    scored = make_scored(patients=2)
    columns = {"view": np.array(["PA", "PA", "PA", "PA", "AP", "PA"])}
    assert join_units(replace(scored, columns=columns), "mean").columns["view"].tolist() == ["PA", "several"]


def test_subgroups_say_their_gap_to_the_others():
    scored = make_scored(skill=3.0)
    rows = {row["value"]: row for row in subgroups_of(scored, "sex")}
    women = scored.columns["sex"] == "F"
    right = scored.probabilities.argmax(axis=1) == scored.targets
    assert rows["F"]["accuracy"] == pytest.approx(right[women].mean())
    assert rows["F"]["accuracy_gap"] == pytest.approx(right[women].mean() - right[~women].mean())
    assert rows["F"]["units"] + rows["M"]["units"] == 40 and rows["M"]["samples"] == (~women).sum()
    halves = [(rows[sex]["accuracy_high"] - rows[sex]["accuracy_low"]) / 2 for sex in "FM"]
    assert rows["F"]["accuracy_visible_gap"] == pytest.approx(np.hypot(*halves))
    assert "ece_gap" in rows["F"] and np.isnan(rows["F"]["ece_visible_gap"]), "the error has no interval"


def test_a_gap_that_is_not_there_is_rarely_visible():
    """Two halves of equal patients; half the width of one interval alone would see a gap in every fifth case."""
    seen = 0
    for seed in range(60):
        scored = make_scored(images=1, patients=100, seed=seed, resamples=80)
        halves = replace(scored, columns={"half": np.random.default_rng(seed).permutation(np.arange(100) % 2)})
        row = subgroups_of(halves, "half")[0]
        seen += abs(row["accuracy_gap"]) > row["accuracy_visible_gap"]
    assert seen <= 8


def test_questions_are_one_of_two_classes_all_of_more_and_known_labels():
    assert [one.name for one in questions_of(make_scored())] == ["class 1"]
    assert len(questions_of(make_scored(classes=4))) == 4
    scored = make_scored("multi-label")
    (effusion, nodule) = questions_of(scored)
    assert len(effusion.positive) == (scored.targets[:, 0] >= 0).sum() and nodule.name == "nodule"
    assert places_of(make_info("regression", ("age",))) == []


def test_the_auroc_of_a_question_is_that_of_the_metrics_where_probabilities_are_rounded_to_1():
    scored = make_scored()
    sure = scored.predictions.astype(np.float32) + np.array([0, 30], np.float32)
    chances = 1 / (1 + np.exp(sure[:, 0] - sure[:, 1]))
    assert (chances == 1).all()
    scored = replace(scored, predictions=sure, probabilities=np.stack([1 - chances, chances], axis=1))
    (question,) = questions_of(scored)
    assert question.auroc == pytest.approx(scored.values()["auroc"]) and question.auroc > 0.6
