import json

import pytest
from pydantic import TypeAdapter, ValidationError

from dpmed.config.loss import LossConfig

ADAPTER = TypeAdapter(LossConfig)


def make(**table):
    return ADAPTER.validate_json(json.dumps(table))


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "dice", "l1", "mse", "huber"])
def test_every_loss_is_chosen_by_its_name_alone(name):
    assert make(name=name).name == name


def test_defaults_are_the_plain_losses():
    assert make(name="cross_entropy").label_smoothing == 0 and make(name="cross_entropy").class_weights is None
    assert (make(name="dice").smooth, make(name="dice").cross_entropy) == (1, 0)
    assert make(name="huber").delta == 1


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy"])
def test_classes_are_weighted_by_numbers_or_by_their_counts(name):
    assert make(name=name, class_weights="balanced").class_weights == "balanced"
    assert make(name=name, class_weights=[1, 0.5]).class_weights == (1, 0.5)


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ({"name": "focal"}, "focal"),
        ({"name": "cross_entropy", "label_smoothing": 1}, "label_smoothing"),
        ({"name": "cross_entropy", "class_weights": []}, "class_weights"),
        ({"name": "cross_entropy", "class_weights": [-1]}, "class_weights"),
        # Counting voxels by class would be one more look at private masks: it is for labels only.
        ({"name": "dice", "class_weights": "balanced"}, "class_weights"),
        ({"name": "dice", "smooth": 0}, "smooth"),
        ({"name": "mse", "class_weights": [1]}, "class_weights"),
        ({"name": "huber", "delta": 0}, "delta"),
        ({"name": "custom"}, "factory"),
        ({"name": "custom", "factory": "os.system('x')"}, "factory"),
    ],
)
def test_what_makes_no_sense_is_refused(table, word):
    with pytest.raises(ValidationError, match=word):
        make(**table)
