"""Predictions of batches against one image after the other, and what arrays are refused."""

import numpy as np
import pytest

from dpmed.config.model import MlpModel, Resnet9Model, UnetModel
from dpmed.errors import InputError
from dpmed.inference.bundle.files import StoredModel
from dpmed.inference.ledger import parse_ledger
from dpmed.inference.predictor import Predictor, load_model
from tests.inference.made import ledger_bytes, logits_of, make_network


def predictor(config, shape, *, batch_size=None, seed=0, **changes):
    network, description = make_network(config, shape, seed=seed, **changes)
    stored = StoredModel(
        source=__import__("pathlib").Path("made"),
        description=description,
        ledger=parse_ledger(ledger_bytes(), where="made"),
        network=network,
    )
    return Predictor(stored, batch_size=batch_size)


def images_of(shape, count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def softmax(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_classes_come_as_probabilities_however_many_images_there_are(count):
    model = predictor(MlpModel(name="mlp", width=(5,)), (4, 5, 1), batch_size=4)
    images = images_of((4, 5, 1), count)
    found = model.predict(images)
    assert found.shape == (count, 3)
    assert found.dtype == np.float32
    if count:
        wanted = softmax(logits_of(model._stored.network, model.description, images))
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_one_logit_gives_two_probabilities():
    model = predictor(MlpModel(name="mlp", width=()), (4, 5, 1), classes=("no", "yes"), outputs=1)
    images = images_of((4, 5, 1), 3)
    logits = logits_of(model._stored.network, model.description, images).astype(np.float64)
    yes = 1 / (1 + np.exp(-logits[:, 0]))
    np.testing.assert_allclose(model.predict(images), np.stack([1 - yes, yes], axis=1), atol=1e-6)


def test_labels_and_numbers_come_in_their_own_units():
    labels = predictor(MlpModel(name="mlp", width=()), (4, 5, 1), task="multi-label")
    images = images_of((4, 5, 1), 2)
    logits = logits_of(labels._stored.network, labels.description, images)
    np.testing.assert_allclose(labels.predict(images), 1 / (1 + np.exp(-logits)), atol=1e-6)
    from dpmed.inference.description import Target

    targets = (Target(name="age", mean=50.0, std=10.0), Target(name="dose", mean=-1.0, std=0.5))
    numbers = predictor(
        MlpModel(name="mlp", width=()), (4, 5, 1), task="regression", classes=(), outputs=2, targets=targets
    )
    logits = logits_of(numbers._stored.network, numbers.description, images)
    np.testing.assert_allclose(numbers.predict(images), logits * [10.0, 0.5] + [50.0, -1.0], rtol=1e-5, atol=1e-5)


def test_masks_are_class_numbers_and_images_come_as_stored():
    masks = predictor(UnetModel(name="unet", channels=(2, 4)), (6, 5, 4, 1), batch_size=2)
    images = images_of((6, 5, 4, 1), 3)
    logits = logits_of(masks._stored.network, masks.description, images)
    found = masks.predict(images)
    assert found.shape == (3, 6, 5, 4)
    assert found.dtype == np.uint8
    # Where two classes tie to rounding, either is right.
    margin = np.sort(logits, axis=-1)[..., -1] - np.sort(logits, axis=-1)[..., -2]
    clear = margin > 1e-4
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found[clear], logits.argmax(axis=-1)[clear])
    again = predictor(UnetModel(name="unet", channels=(2, 4)), (6, 5, 1), task="reconstruction", classes=(), outputs=1)
    pictures = images_of((6, 5, 1), 2)
    wanted = (logits_of(again._stored.network, again.description, pictures) * 0.25 + 0.5) * 255
    np.testing.assert_allclose(again.predict(pictures), wanted, atol=1e-2)


def test_a_stream_says_the_same_and_holds_one_batch_at_a_time():
    model = predictor(MlpModel(name="mlp", width=(5,)), (4, 5, 1), batch_size=4)
    images = images_of((4, 5, 1), 11)
    taken = 0

    def source():
        nonlocal taken
        for image in images:
            taken += 1
            yield image

    stream = model.predict_stream(source())
    first = next(stream)
    assert taken == 4
    np.testing.assert_allclose(np.stack([first, *stream]), model.predict(images), atol=1e-6)


def test_how_images_are_grouped_changes_no_bit_of_a_full_batch():
    model = predictor(Resnet9Model(name="resnet9", channels=(4, 4, 4, 4), groups=2), (8, 8, 1), batch_size=4)
    images = images_of((8, 8, 1), 8)
    whole = model.mean_scale(images, full=True)
    alone = np.concatenate([model.mean_scale(images[i : i + 1], full=True) for i in range(8)])
    np.testing.assert_array_equal(whole, alone)


def test_batch_norm_uses_running_statistics_not_the_batch():
    model = predictor(
        Resnet9Model(name="resnet9", channels=(4, 4, 4, 4), normalisation="batch"), (8, 8, 1), batch_size=4
    )
    images = images_of((8, 8, 1), 4)
    changed = images.copy()
    changed[1:] = 255 - changed[1:]
    np.testing.assert_array_equal(model.predict(images)[0], model.predict(changed)[0])


def test_flips_are_averaged_and_masks_turned_back():
    model = predictor(MlpModel(name="mlp", width=(5,)), (4, 5, 1))
    images = images_of((4, 5, 1), 2)
    versions = [images, images[:, ::-1], images[:, :, ::-1], images[:, ::-1, ::-1]]
    wanted = np.mean([model.predict(np.ascontiguousarray(version)) for version in versions], axis=0)
    np.testing.assert_allclose(model.mean_scale(images, flips=(0, 1)), wanted, atol=1e-6)
    masks = predictor(UnetModel(name="unet", channels=(2, 4)), (4, 6, 1))
    pictures = images_of((4, 6, 1), 1)
    turned = masks.mean_scale(np.ascontiguousarray(pictures[:, :, ::-1]))[:, :, ::-1]
    wanted = (masks.mean_scale(pictures) + turned) / 2
    np.testing.assert_allclose(masks.mean_scale(pictures, flips=(1,)), wanted, atol=1e-6)


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 5, 4, 1)), np.zeros((4, 5, 1)), np.zeros((2, 4, 5, 3)), np.zeros((2, 4, 5, 1), bool)],
)
def test_images_of_another_shape_are_refused(images):
    model = predictor(MlpModel(name="mlp", width=()), (4, 5, 1))
    with pytest.raises(InputError, match=r"images: are .* but the model takes numbers of shape \(n, 4, 5, 1\)"):
        model.predict(images)
    with pytest.raises(InputError, match="images: are"):
        list(model.predict_stream(images))


def test_a_run_folder_predicts_what_its_own_test_said(digits_run):
    import json

    from dpmed.config.load import config_from_toml
    from dpmed.data.build import build_dataset
    from dpmed.progress import Silent

    model = load_model(digits_run)
    config = config_from_toml((digits_run / "config.toml").read_text(), "config")
    dataset = build_dataset(config.data, progress=Silent())
    test = json.loads((digits_run / "split.json").read_text())["test"]
    found = model.predict(np.stack([dataset[number].input for number in test]))
    labels = np.array([int(dataset[number].target) for number in test])
    said = json.loads((digits_run / "summary.json").read_text())["test"]
    assert (found.argmax(axis=1) == labels).mean() == pytest.approx(said["accuracy"])
    assert -np.log(found[np.arange(len(labels)), labels]).mean() == pytest.approx(said["loss"], rel=1e-4)
