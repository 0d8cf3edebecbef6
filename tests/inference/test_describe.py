"""From config and data set to a description, for kinds of data whose files need different things."""

import numpy as np
import pytest

from dpmed.config.load import config_from_toml
from dpmed.data.base import Info
from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.data.storage.stored import ArrayDataset, Listing
from dpmed.inference.describe import describe_model

CONFIG = """
[data]
name = "folder"
root = "nowhere"
[model]
name = "mlp"
pretrained = "secret/place.safetensors"
[loss]
name = "{loss}"
[optimizer]
name = "nadam"
learning_rate = 0.01
[training]
epochs = 1
batch_size = 2
ema_decay = 0.9
early_stopping = {{ patience = 3 }}
"""


def described(
    *,
    task="classification",
    classes=("a", "b"),
    loss="cross_entropy",
    shape=(4, 4, 1),
    dtype=np.uint8,
    model="",
    **facts,
):
    info = Info(
        name="folder",
        task=task,
        input_shape=shape,
        class_names=classes,
        **{"scale": 255.0, "mean": (0.5,), "std": (0.25,), "unit": "image", **facts},
    )
    inputs = np.zeros((2, *shape), dtype)
    dataset = ArrayDataset(info, Listing(labels=None, groups=["1", "2"]), inputs=inputs, targets=np.zeros(2, np.int32))
    return describe_model(
        config_from_toml(CONFIG.format(loss=loss).replace("[loss]", f"{model}\n[loss]"), "made"), dataset
    )


def test_what_belongs_to_training_alone_and_paths_are_left_out():
    found = described()
    assert found.architecture.pretrained is None
    assert "secret" not in found.model_dump_json()
    assert found.threshold == 0.5
    assert len(found.chosen) == 3
    assert "Early stopping" in found.chosen[1]


@pytest.mark.parametrize("train_only", ["head", "norms", "bias", "lora"])
def test_what_was_trained_is_told_and_only_adapters_are_part_of_the_network(train_only):
    found = described(model=f'train_only = "{train_only}"')
    assert len(found.chosen) == 4
    assert found.chosen[-1].startswith("Only")
    assert found.architecture.train_only == ("lora" if train_only == "lora" else "all")
    assert (found.architecture.lora is not None) == (train_only == "lora")


@pytest.mark.parametrize(
    ("facts", "outputs", "threshold"),
    [
        ({"loss": "binary_cross_entropy"}, 1, 0.5),
        ({"classes": ("a", "b", "c")}, 3, None),
        ({"task": "multi-label", "classes": ("a", "b", "c")}, 3, 0.5),
        (
            {"task": "regression", "classes": (), "target_names": ("x",), "target_mean": (1.0,), "target_std": (2.0,)},
            1,
            None,
        ),
        ({"task": "reconstruction", "classes": ()}, 1, None),
    ],
)
def test_outputs_and_thresholds_follow_from_task_and_loss(facts, outputs, threshold):
    found = described(**facts)
    assert (found.outputs, found.threshold) == (outputs, threshold)


def test_files_are_decoded_as_the_data_set_says():
    decoding = Preprocessing(size=(4, 4, 4), window="percentiles", spacing_mm=(1.0, 1.0, 2.0))
    found = described(shape=(4, 4, 4, 1), dtype=np.float16, scale=1.0, preprocessing=decoding).preprocessing
    assert found.decoding == decoding
    assert (found.kind, found.stored_as) == ("volume", "float16")
    deep = Preprocessing(size=(4, 4), depth=16)
    found = described(dtype=np.uint16, scale=65535.0, preprocessing=deep).preprocessing
    assert found.decoding == deep
    assert (found.kind, found.stored_as, found.full_scale) == ("picture", "uint16", None)


def test_samples_of_several_files_cannot_be_read_from_one():
    decoding = Preprocessing(size=(4, 4), channels=2, files=2)
    found = described(shape=(4, 4, 2), preprocessing=decoding, mean=(0.5, 0.5), std=(0.2, 0.2)).preprocessing
    assert found.arrays_only == "each channel of a sample was a separate file"


def test_volumes_of_bytes_hold_0_to_255():
    assert described(shape=(4, 4, 4, 1)).preprocessing.window == (0.0, 255.0)


def test_pictures_of_another_range_are_mapped_to_it():
    assert described(scale=16.0).preprocessing.full_scale == 16.0
    assert described().preprocessing.full_scale is None
