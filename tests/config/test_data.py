import json
from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from dpmed.config.data import DataConfig, DataTable

ADAPTER = TypeAdapter(DataConfig)


def make(**table):
    return ADAPTER.validate_json(json.dumps(table))


def members():
    return get_args(get_args(DataConfig)[0])


@pytest.mark.parametrize(
    "name", ["digits", "patches", "ham10000", "radimagenet", "msd", "cifar10", "medmnist", "folder"]
)
def test_every_data_set_is_chosen_by_its_name_and_works_with_defaults(name):
    needs_root = name not in ("digits", "patches", "cifar10")
    config = make(name=name, **({"root": "somewhere"} if needs_root else {}))
    assert isinstance(config, DataTable) and config.name == name
    assert 0 < config.test_fraction < 1 and config.train_size is None


@pytest.mark.parametrize("model", members())
def test_every_key_is_described(model):
    assert model.__doc__
    assert all(field.description for key, field in model.model_fields.items() if key != "name")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "ham10000"}, "root"),
        ({"name": "ham10000", "root": "x", "size": [224]}, "size"),
        ({"name": "ham10000", "root": "x", "size": [0, 224]}, "size"),
        ({"name": "ham10000", "root": "x", "test_fraction": 1.0}, "test_fraction"),
        ({"name": "ham10000", "root": "x", "sise": [2, 2]}, "sise"),
        ({"name": "msd", "root": "x", "task": "kidney"}, "task"),
        ({"name": "msd", "root": "x", "window": [200, -150]}, "two increasing values"),
        ({"name": "folder", "root": "x", "window": [5, 5]}, "two increasing values"),
        ({"name": "folder", "root": "x", "mean": [0.5]}, "together"),
        ({"name": "medmnist", "root": "x", "size": 100}, "size"),
        ({"name": "nothing"}, "tag"),
    ],
)
def test_what_makes_no_sense_is_refused(table, message):
    with pytest.raises(ValidationError, match=message):
        make(**table)


def test_the_papers_settings_are_the_defaults():
    assert make(name="ham10000", root="x").size == (224, 224)
    assert make(name="ham10000", root="x").classes == "binary"
    assert make(name="msd", root="x").shape == (128, 128, 50)
    assert (make(name="msd", root="x").test_fraction, make(name="msd", root="x").validation_fraction) == (0.1, 0.1)
