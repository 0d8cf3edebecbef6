"""From config and data set to a description, for kinds of data whose files need different things."""

import numpy as np
import pytest

from dpmed.config.load import config_from_toml
from dpmed.data.base import Info
from dpmed.data.stored import ArrayDataset, Listing
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
    *, task="classification", classes=("a", "b"), loss="cross_entropy", shape=(4, 4, 1), dtype=np.uint8, **facts
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
    return describe_model(config_from_toml(CONFIG.format(loss=loss), "made"), dataset)


def test_what_belongs_to_training_alone_and_paths_are_left_out():
    found = described()
    assert found.architecture.pretrained is None
    assert "secret" not in found.model_dump_json()
    assert found.threshold == 0.5
    assert len(found.chosen) == 3
    assert "Early stopping" in found.chosen[1]


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


@pytest.mark.parametrize(
    ("facts", "window", "percentiles"),
    [
        ({"value_range": (-150.0, 200.0), "scale": 1.0}, (-150.0, 200.0), None),
        ({"value_range": (0.0, 1.0), "scale": 1.0}, None, (0.5, 99.5)),
        ({"scale": 1.0}, (-1024.0, 3071.0), None),
        ({"scale": 255.0}, (0.0, 255.0), None),
    ],
)
def test_volumes_have_the_window_of_their_values(facts, window, percentiles):
    found = described(shape=(4, 4, 4, 1), dtype=np.float16, **facts).preprocessing
    assert (found.kind, found.window, found.percentiles, found.stored_as) == ("volume", window, percentiles, "float16")


def test_pictures_of_another_range_are_mapped_to_it():
    assert described(scale=16.0).preprocessing.full_scale == 16.0
    assert described().preprocessing.full_scale is None
