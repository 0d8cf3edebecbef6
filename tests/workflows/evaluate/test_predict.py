"""A network's answers scored: its own logits, surfaces in mm, a temperature fitted and named."""

import numpy as np
import pytest

from dpmed.config.model import MlpModel, UnetModel
from dpmed.data.base import Info
from dpmed.data.storage.stored import ArrayDataset, Listing
from dpmed.errors import InputError
from dpmed.metrics.temperature import fit_temperature
from dpmed.progress import Silent
from dpmed.workflows.evaluate.predict import check_probabilities, fit, score
from tests.inference.made import CLASSES, logits_of, make_network
from tests.inference.test_predictor import predictor

MLP = MlpModel(name="mlp", width=(5,))
SHAPE = (4, 5, 1)


def dataset_of(task, shape, targets, *, names=CLASSES, count=12):
    is_image = task == "reconstruction"
    info = Info(
        name="made up", task=task, input_shape=shape, class_names=() if is_image else names, scale=255.0, mean=(0.5,),
        std=(0.25,), unit="patient",
    )  # fmt: skip
    inputs = np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(np.uint8)
    groups = [f"p{number // 2}" for number in range(count)]
    listing = Listing(labels=None, groups=groups, columns={"site": ["a", "b"] * (count // 2)})
    return ArrayDataset(info, listing, inputs=inputs, targets=inputs if is_image else targets)


def go(model, dataset, numbers, **changes):
    facts = {"resamples": 10, "tolerance": 1.0, "progress": Silent(), **changes}
    return score(model, dataset, np.asarray(numbers), **facts)


def classes(count=12):
    return np.random.default_rng(1).integers(0, 3, count).astype(np.int32)


def test_logits_targets_groups_and_columns_are_those_of_the_samples_asked_for():
    dataset, numbers = dataset_of("classification", SHAPE, classes()), [7, 2, 11, 0, 5]
    found = go(predictor(MLP, SHAPE, batch_size=2), dataset, numbers)
    network, description = make_network(MLP, SHAPE)
    np.testing.assert_allclose(found.predictions, logits_of(network, description, dataset.inputs[numbers]), atol=1e-5)
    assert found.targets.tolist() == classes()[numbers].tolist()
    assert found.groups == ["p3", "p1", "p5", "p0", "p2"] and found.names == ["7", "2", "11", "0", "5"]
    assert found.columns["site"].tolist() == ["b", "a", "b", "a", "b"]
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-6)


def test_a_temperature_divides_the_logits():
    dataset, model = dataset_of("classification", SHAPE, classes()), predictor(MLP, SHAPE)
    plain, cooled = go(model, dataset, range(12)), go(model, dataset, range(12), temperature=2.0)
    np.testing.assert_allclose(cooled.predictions * 2, plain.predictions, rtol=1e-6)
    powers = np.exp(plain.predictions / 2)
    np.testing.assert_allclose(cooled.probabilities, powers / powers.sum(axis=1, keepdims=True), rtol=1e-5)


def test_the_temperature_is_that_of_the_validation_split_and_says_what_it_used():
    dataset, model = dataset_of("classification", SHAPE, classes()), predictor(MLP, SHAPE)
    found = fit(model, dataset, np.arange(4, 12), Silent())
    logits = go(model, dataset, range(4, 12)).predictions
    assert found.value == fit_temperature(logits, classes()[4:], task="classification")
    assert found.loss_after <= found.loss_before
    assert (found.samples, found.units) == (8, 4) and "8 samples (4 patients) of the validation split" in found.use


def test_masks_are_scored_by_overlap_and_by_surfaces():
    shape = (8, 8, 1)
    names = ("none", "organ")
    model = predictor(UnetModel(name="unet", channels=(2, 4)), shape, batch_size=5, classes=names)
    dataset = dataset_of("segmentation", shape, np.zeros((12, 8, 8), np.uint8), names=names)
    own = model.predict(dataset.inputs)
    found = go(model, ArrayDataset(dataset.info, dataset.listing, inputs=dataset.inputs, targets=own), range(12))
    assert found.predictions is None and found.targets is None
    assert set(found.table) >= {"dice", "dice_organ", "surface_dice", "surface_dice_organ", "hausdorff95_pixels"}
    has_organ = (own == 1).any(axis=(1, 2))
    assert has_organ.any()
    # The masks are the model's own.
    np.testing.assert_array_equal(found.table["surface_dice"][has_organ], 1.0)
    np.testing.assert_array_equal(found.table["hausdorff95_pixels"][has_organ], 0.0)
    np.testing.assert_array_equal(found.table["dice_organ"], np.where(has_organ, 1.0, np.nan))


def test_without_probabilities_there_is_no_temperature():
    shape = (8, 8, 1)
    check_probabilities(dataset_of("classification", SHAPE, classes()).info)
    masks = dataset_of("segmentation", shape, np.zeros((12, 8, 8), np.uint8), names=("none", "organ"))
    with pytest.raises(InputError, match="fit_temperature: has no meaning for segmentation"):
        check_probabilities(masks.info)
