import json
from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from dpmed.config.model import Activation, ModelConfig, Normalisation, Pooling
from dpmed.models.layers import ACTIVATIONS, POOLINGS

ADAPTER = TypeAdapter(ModelConfig)


def make(**table):
    return ADAPTER.validate_json(json.dumps(table))


@pytest.mark.parametrize(
    "name", ["mlp", "small_cnn", "resnet9", "wide_resnet", "resnet18", "resnet34", "resnet50", "vit", "unet"]
)
def test_every_network_is_chosen_by_its_name_alone_and_is_trained_whole(name):
    config = make(name=name)
    assert (config.name, config.members, config.train_only, config.unfreeze_epochs) == (name, 1, "all", 0)
    # Batch norm would mix samples: no default may be refused under [privacy].
    assert getattr(config, "normalisation", "group") == "group"


def test_names_are_those_that_the_networks_know():
    assert set(get_args(Activation)) == set(ACTIVATIONS)
    assert set(get_args(Pooling)) == set(POOLINGS)
    assert set(get_args(Normalisation)) == {"group", "batch", "frozen", "none"}


def test_the_papers_classifier_is_the_default_resnet9():
    config = make(name="resnet9")
    assert (config.channels, config.convolution, config.activation) == ((64, 128, 256, 256), "centred", "mish")
    assert config.scale_norm and config.pooling == "max" and config.groups == 32


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ({"name": "vgg"}, "vgg"),
        ({"name": "mlp", "width": [0]}, "width"),
        ({"name": "mlp", "width": [65_537]}, "width"),
        ({"name": "small_cnn", "channels": []}, "channels"),
        ({"name": "resnet9", "channels": [4, 4, 4]}, "channels"),
        ({"name": "resnet18", "stem": "medium"}, "stem"),
        ({"name": "wide_resnet", "depth": 4}, "depth"),
        ({"name": "vit", "width": 10, "heads": 4}, "does not divide"),
        ({"name": "unet", "channels": [4]}, "channels"),
        ({"name": "mlp", "members": 65}, "members"),
        ({"name": "mlp", "train_only": "tail"}, "train_only"),
        ({"name": "custom", "factory": "a:b", "train_only": "head"}, "let the factory do it"),
        ({"name": "custom", "factory": "a:b", "unfreeze_epochs": 1}, "let the factory do it"),
        ({"name": "custom", "factory": "a:b", "pretrained": "x.eqx"}, "let the factory do it"),
        ({"name": "custom"}, "factory"),
        ({"name": "custom", "factory": "a:b", "train_only": "lora"}, "let the factory do it"),
        ({"name": "mlp", "lora": {"rank": 4}}, "only train_only"),
        ({"name": "mlp", "train_only": "norms", "lora": {}}, "only train_only"),
        ({"name": "mlp", "train_only": "lora", "unfreeze_epochs": 1}, "adapters"),
        ({"name": "mlp", "train_only": "lora", "lora": {"rank": 0}}, "rank"),
        ({"name": "mlp", "train_only": "lora", "lora": {"scale": 0}}, "scale"),
        ({"name": "mlp", "train_only": "lora", "lora": {"layers": []}}, "layers"),
    ],
)
def test_what_makes_no_sense_is_refused(table, word):
    with pytest.raises(ValidationError, match=word):
        make(**table)


def test_adapters_are_there_with_lora_alone_and_have_defaults():
    assert make(name="mlp", train_only="norms").adapters is None
    found = make(name="mlp", train_only="lora").adapters
    assert (found.rank, found.scale, found.layers) == (8, 8.0, ("*",))
    assert make(name="mlp", train_only="lora", lora={"rank": 2}).adapters.rank == 2
