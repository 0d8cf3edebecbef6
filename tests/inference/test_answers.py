"""Threshold rules, disagreement, and the cells of a row."""

import numpy as np
import pytest

from dpmed.config.model import MlpModel, UnetModel
from dpmed.errors import InputError
from dpmed.inference.answers import (
    answer_columns,
    answer_row,
    class_numbers,
    combine,
    mean_scale,
    settle_threshold,
)
from dpmed.inference.description import Target
from tests.inference.made import make_description

MLP = MlpModel(name="mlp", width=())
BINARY = make_description(MLP, (4, 4, 1), classes=("benign", "malignant"))
THREE = make_description(MLP, (4, 4, 1))
LABELS = make_description(MLP, (4, 4, 1), task="multi-label", threshold=0.5)
AGE = make_description(
    MLP, (4, 4, 1), task="regression", classes=(), outputs=1, targets=(Target(name="age", mean=50.0, std=10.0),)
)
MASKS = make_description(UnetModel(name="unet", channels=(2, 2)), (4, 4, 1), classes=("background", "lesion"))


@pytest.mark.parametrize(
    ("probability", "threshold", "said"),
    [
        (0.5, None, "malignant"),
        (0.499, None, "benign"),
        (0.3, 0.3, "malignant"),
        (0.299, 0.3, "benign"),
        (0.9, 0.95, "benign"),
    ],
)
def test_of_two_classes_the_second_is_said_from_the_threshold_on(probability, threshold, said):
    settled = settle_threshold(BINARY, threshold)
    row = answer_row(np.array([1 - probability, probability], np.float32), BINARY, threshold=settled)
    assert row["prediction"] == said
    assert float(row["probability_malignant"]) == np.float32(probability)


def test_of_more_classes_the_most_probable_is_said_and_the_first_of_equals():
    row = answer_row(np.array([0.25, 0.375, 0.375], np.float32), THREE, threshold=settle_threshold(THREE, None))
    assert row == {
        "prediction": "ill",
        "probability_healthy": "0.25",
        "probability_ill": "0.375",
        "probability_unsure": "0.375",
    }


def test_labels_are_each_said_from_the_threshold_on():
    row = answer_row(np.array([0.2, 0.5, 0.8], np.float32), LABELS, threshold=settle_threshold(LABELS, None))
    assert (row["healthy"], row["ill"], row["unsure"]) == (0, 1, 1)
    row = answer_row(np.array([0.2, 0.5, 0.8], np.float32), LABELS, threshold=settle_threshold(LABELS, 0.6))
    assert (row["healthy"], row["ill"], row["unsure"]) == (0, 0, 1)


def test_numbers_have_no_threshold():
    assert answer_row(np.array([62.5], np.float32), AGE, threshold=settle_threshold(AGE, None)) == {"value_age": "62.5"}


@pytest.mark.parametrize("description", [THREE, AGE])
def test_a_threshold_where_it_has_no_meaning_is_refused(description):
    with pytest.raises(InputError, match="threshold: has no meaning for"):
        settle_threshold(description, 0.5)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0, float("nan")])
def test_a_threshold_is_between_0_and_1(threshold):
    with pytest.raises(InputError, match="is not between 0 and 1"):
        settle_threshold(BINARY, threshold)


def test_masks_of_two_classes_follow_the_threshold_voxel_by_voxel():
    probabilities = np.array([[[0.7, 0.3], [0.5, 0.5]]], np.float32)
    np.testing.assert_array_equal(class_numbers(probabilities, settle_threshold(MASKS, None)), [[0, 1]])
    np.testing.assert_array_equal(class_numbers(probabilities, settle_threshold(MASKS, 0.25)), [[1, 1]])


def test_probabilities_of_huge_logits_are_finite():
    found = mean_scale(np.array([[1e30, -1e30, 0.0]], np.float32), THREE)
    np.testing.assert_allclose(found, [[1.0, 0.0, 0.0]])
    np.testing.assert_allclose(mean_scale(np.array([[-1e30, 1e30, 0.0]], np.float32), LABELS), [[0.0, 1.0, 0.5]])


def test_one_model_does_not_disagree():
    assert combine([np.ones((2, 3), np.float32)], task="classification").disagreement is None


def test_disagreement_is_the_mean_distance_in_total_variation():
    one, two = np.array([[1.0, 0.0], [0.5, 0.5]], np.float32), np.array([[0.0, 1.0], [0.5, 0.5]], np.float32)
    found = combine([one, two], task="classification")
    np.testing.assert_allclose(found.mean, 0.5)
    # Each is half of all probability away from the mean.
    np.testing.assert_allclose(found.disagreement, [0.5, 0.0])
    masks = np.stack([one, two])[None]
    assert combine([masks, masks[:, ::-1]], task="segmentation").disagreement.shape == (1,)


def test_disagreement_of_labels_and_values():
    one, two = np.array([[0.2, 0.9]], np.float32), np.array([[0.6, 0.9]], np.float32)
    np.testing.assert_allclose(combine([one, two], task="multi-label").disagreement, [0.1], rtol=1e-6)
    np.testing.assert_allclose(combine([10 * one, 10 * two], task="regression").disagreement, [1.0], rtol=1e-6)


def test_columns_are_those_of_the_contract():
    assert answer_columns(BINARY, ensemble=False) == ["prediction", "probability_benign", "probability_malignant"]
    assert answer_columns(LABELS, ensemble=True)[3:] == ["healthy", "ill", "unsure", "disagreement"]
    assert answer_columns(AGE, ensemble=False) == ["value_age"]
    assert answer_columns(MASKS, ensemble=False) == ["mask", "voxels_background", "voxels_lesion"]
