import json

import pytest
from pydantic import TypeAdapter, ValidationError

from dpmed.config.optimizer import OptimizerConfig

ADAPTER = TypeAdapter(OptimizerConfig)
NAMES = ["sgd", "adam", "adamw", "nadam", "rmsprop", "lion"]


def make(**table):
    return ADAPTER.validate_json(json.dumps(table))


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_needs_its_learning_rate_and_nothing_else(name):
    config = make(name=name, learning_rate=1)
    assert (config.name, config.learning_rate) == (name, 1)
    with pytest.raises(ValidationError, match="learning_rate"):
        make(name=name)


def test_only_adamw_decays_weights_unasked():
    assert {name for name in NAMES if make(name=name, learning_rate=1).weight_decay} == {"adamw"}


def test_defaults_are_those_of_the_papers():
    adam, lion = make(name="adam", learning_rate=1), make(name="lion", learning_rate=1)
    assert (adam.beta1, adam.beta2, adam.eps) == (0.9, 0.999, 1e-8)  # Kingma & Ba (2015)
    assert (lion.beta1, lion.beta2) == (0.9, 0.99)  # Chen et al. (2023)


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0},
        {"learning_rate": -1},
        {"weight_decay": -0.1},
        {"momentum": 1},
        {"momentum": -0.1},
        {"beta1": 0.9},
    ],
)
def test_what_makes_no_sense_for_sgd_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        make(**{"name": "sgd", "learning_rate": 0.1, **wrong})
