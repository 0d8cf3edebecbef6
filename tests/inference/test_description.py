"""`model.json`: its schema describes it, and the file in docs is that schema."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from dpmed.config.model import MlpModel
from dpmed.errors import InputError
from dpmed.inference.description import ModelDescription, description_schema, parse_description
from tests.inference.made import make_description

MLP = MlpModel(name="mlp", width=(5,))


def test_a_description_comes_back():
    before = make_description(MLP, (4, 5, 1))
    assert parse_description(json.dumps(before.to_json()), where="made") == before
    assert before.input_shape == (4, 5, 1)


def test_the_schema_names_every_key_with_its_meaning():
    schema = json.loads(description_schema())
    assert set(schema["properties"]) == set(ModelDescription.model_fields)
    assert all("description" in part for part in schema["properties"].values())


def test_the_schema_in_docs_is_current():
    path = Path(__file__).resolve().parents[2] / "docs" / "model.schema.json"
    assert path.read_text() == description_schema(), "run `make docs`"


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ("a", "a", "b")},
        {"classes": ("a", "b")},
        {"threshold": 0.5},
        {"preprocessing": {"mean": (0.0, 0.0)}},
        {"preprocessing": {"spacing_mm": (1.0, 1.0, 1.0)}},
        {"preprocessing": {"window": (3.0, 1.0)}},
        {"preprocessing": {"kind": "volume"}},
        {"task": "regression"},
    ],
)
def test_parts_must_agree(changes):
    with pytest.raises(ValidationError):
        make_description(MLP, (4, 5, 1), **{"outputs": 3, **changes})


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "\x00", '{"format": "other"}', " " * (2 << 20)])
def test_what_is_no_description_is_refused(text):
    with pytest.raises(InputError):
        parse_description(text, where="made")
