"""Predictions are in the requested order, whatever the batches; padding is removed; masks are classes."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.config.loss import CrossEntropyLoss, DiceLoss, MseLoss
from dpmed.config.model import MlpModel, UnetModel
from dpmed.data.base import Info, Sample
from dpmed.models.build import build_model
from dpmed.training.evaluate import Evaluator
from dpmed.training.losses import build_loss
from dpmed.training.objective import NonTrainable, Objective

SHAPE, COUNT, CLASSES = (4, 5, 1), 11, 3
MODELS = {
    "classification": (MlpModel(name="mlp", width=()), CrossEntropyLoss(name="cross_entropy")),
    "segmentation": (UnetModel(name="unet", channels=(2, 2)), DiceLoss(name="dice")),
    "reconstruction": (UnetModel(name="unet", channels=(2, 2)), MseLoss(name="mse")),
}


class Made:
    """A small data set for any task."""

    def __init__(self, task):
        rng = np.random.default_rng(0)
        self.inputs = rng.integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8)
        if task == "reconstruction":
            self.targets = self.inputs
        else:
            shape = (COUNT,) if task == "classification" else (COUNT, *SHAPE[:-1])
            self.targets = rng.integers(0, CLASSES, shape).astype(np.int32)
        self.info = Info(
            name="made",
            task=task,
            input_shape=SHAPE,
            class_names=() if task == "reconstruction" else tuple("abc"),
            scale=255.0,
            mean=(0.5,),
            std=(0.25,),
            unit="image",
        )
        self.labels, self.groups, self.official_split = None, [str(n) for n in range(COUNT)], None

    def columns(self):
        return {}

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return Sample(input=self.inputs[index], target=np.asarray(self.targets[index]))


def make(task):
    dataset = Made(task)
    model, loss = MODELS[task]
    outputs = 1 if task == "reconstruction" else CLASSES
    built = build_model(model, SHAPE, outputs=outputs, task=task, key=jax.random.key(0))
    arrays, static = eqx.partition(built.module, eqx.is_inexact_array)
    trained = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape), arrays)
    info = dataset.info
    objective = Objective(
        static=static,
        loss=build_loss(loss, task=task, classes=len(info.class_names)),
        augment=None,
        multiplicity=1,
        image_target=task == "reconstruction",
        scaling=info.scaling,
    )
    return dataset, objective, trained, NonTrainable(frozen=jax.tree.map(lambda _: None, trained), state=None)


@pytest.mark.parametrize("task", MODELS)
@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_each_sample_has_its_own_prediction_target_and_loss(task, batch_size):
    dataset, objective, trained, rest = make(task)
    alone = jax.jit(lambda image: objective.predict(trained, rest, image[None])[0])
    order = np.array([7, 0, 10, 3, 3, 5])
    told = []
    evaluator = Evaluator(objective, dataset, batch_size=batch_size)
    found = evaluator(trained, rest, order, advance=told.append)
    assert sum(told) == len(order)
    assert len(told) == -(-len(order) // min(batch_size, len(order)))
    for place, number in enumerate(order):
        prediction = alone(dataset.inputs[number])
        loss = objective.loss(prediction, objective.target(jnp.asarray(dataset.targets[number])))
        assert found.losses[place] == pytest.approx(float(loss), rel=1e-4)
        if task == "segmentation":
            np.testing.assert_array_equal(found.predictions[place], np.argmax(prediction, axis=-1))
        else:
            np.testing.assert_allclose(found.predictions[place], prediction, rtol=1e-4, atol=1e-5)
        wanted = np.asarray(objective.target(jnp.asarray(dataset.targets[number])))
        np.testing.assert_allclose(found.targets[place], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("usual", "samples", "size"),
    [
        (6, 6, 6),
        (6, 11, 6),
        (6, 3, 6),
        (6, 2, 2),
        (4, 11, 4),
        (3, 11, 8),
        (9, 3, 3),
        (30, 11, 8),
        (30, 3, 3),
        (None, 5, 5),
    ],
)
def test_batches_are_those_of_most_evaluations_where_these_are_not_far_from_their_own(usual, samples, size):
    dataset, objective, trained, rest = make("classification")
    evaluator = Evaluator(objective, dataset, batch_size=8, usual=usual)
    seen, evaluate = [], evaluator._evaluate
    evaluator._evaluate = lambda *batch: seen.append(len(batch[-1])) or evaluate(*batch)
    found = evaluator(trained, rest, np.arange(samples))
    assert set(seen) == {size} and len(seen) == -(-samples // size)
    own = Evaluator(objective, dataset, batch_size=8)(trained, rest, np.arange(samples))
    np.testing.assert_allclose(found.predictions, own.predictions, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.losses, own.losses, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.targets, own.targets)


def test_masks_come_as_bytes_and_images_in_the_normalised_unit():
    dataset, objective, trained, rest = make("segmentation")
    found = Evaluator(objective, dataset, batch_size=4)(trained, rest, np.arange(COUNT))
    assert (found.predictions.dtype, found.targets.dtype) == (np.uint8, np.uint8)
    assert len(np.unique(found.predictions)) > 1
    dataset, objective, trained, rest = make("reconstruction")
    found = Evaluator(objective, dataset, batch_size=4)(trained, rest, np.arange(COUNT))
    np.testing.assert_allclose(found.targets, (dataset.inputs / 255 - 0.5) / 0.25, rtol=1e-4, atol=1e-5)


def test_the_constants_of_the_data_set_are_not_those_of_the_model():
    dataset, objective, trained, rest = make("classification")
    shifted = replace(objective, scaling=replace(objective.scaling, mean=(0.4,)))
    first = Evaluator(objective, dataset, batch_size=11)(trained, rest, np.arange(COUNT))
    second = Evaluator(shifted, dataset, batch_size=11)(trained, rest, np.arange(COUNT))
    assert not np.allclose(first.predictions, second.predictions)
