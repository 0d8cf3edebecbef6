"""Where in the schema a key stands, checked against keys that are written down here by hand."""

import json
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ValidationError

from dpmed.config.keys import keys_at, models_at, models_in, tag_of, tags_at, without_tag
from dpmed.config.loss import CrossEntropyLoss, DiceLoss
from dpmed.config.schema import Config
from dpmed.config.training import EarlyStoppingConfig


class One(BaseModel):
    name: Literal["one"]


class Two(BaseModel):
    name: str = "two"


def test_models_are_found_in_unions_lists_and_annotations():
    assert list(models_in(One)) == [One]
    assert list(models_in(Annotated[One | Two, "x"] | None)) == [One, Two]
    assert list(models_in(list[One])) == list(models_in(tuple[One, ...])) == [One]
    assert list(models_in(int | str)) == []


def test_only_a_literal_name_is_a_tag():
    assert (tag_of(One), tag_of(Two), tag_of(EarlyStoppingConfig)) == ("one", None, None)


def test_a_known_tag_leaves_its_own_member_and_an_unknown_one_leaves_all():
    assert models_at(["loss"], {"loss": {"name": "dice"}}) == [DiceLoss]
    assert len(models_at(["loss"], {"loss": {"name": "dise"}})) == len(tags_at(["loss"])) > 3
    assert models_at(["training", "early_stopping"], {}) == [EarlyStoppingConfig]
    assert models_at([], {}) == [Config]


def test_keys_are_those_of_the_member_that_was_chosen():
    assert keys_at(["loss"], {"loss": {"name": "dice"}}) == ["class_weights", "cross_entropy", "name", "smooth"]
    assert keys_at(["loss"], {"loss": {"name": "cross_entropy"}}) == sorted(CrossEntropyLoss.model_fields)
    assert keys_at(["training", "early_stopping"], {}) == ["min_delta", "patience"]
    assert keys_at(["nothing"], {}) == []


def test_tags_are_sorted():
    assert tags_at(["schedule"]) == ["constant", "cosine", "plateau", "steps"]
    assert tags_at(["training"]) == []


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ({"loss": {"name": "dice", "smooth": -1}}, ("loss", "smooth")),
        ({"loss": {"name": "dice", "dice": 1}}, ("loss", "dice")),
        ({"loss": {"name": "dice", "class_weights": [1, "x"]}}, ("loss", "class_weights", 1)),
        ({"loss": {"name": "cross_entropy", "class_weights": "even"}}, ("loss", "class_weights")),
        ({"schedule": {"name": "steps", "epochs": []}}, ("schedule", "epochs")),
        (
            {"training": {"batch_size": 1, "early_stopping": {"patience": 0}}},
            ("training", "early_stopping", "patience"),
        ),
        ({"training": {"batch_size": 1, "microbatch": "many"}}, ("training", "microbatch")),
    ],
)
def test_what_pydantic_says_is_led_back_to_what_the_user_wrote(table, wanted):
    with pytest.raises(ValidationError) as caught:
        Config.model_validate_json(json.dumps(table))
    section = wanted[0]
    found = {without_tag(entry["loc"], table) for entry in caught.value.errors() if entry["loc"][0] == section}
    assert wanted in found
