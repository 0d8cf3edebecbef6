"""Errors about a field of the config name the place where the user gave it."""

import pytest

from dpmed.config.load import LoadedConfig, load_config
from dpmed.errors import InputError, RunError

LOADED = load_config("quickstart", ["privacy.delta=1e-6", "training.early_stopping={patience = 3}"])


@pytest.mark.parametrize(
    ("field", "place"),
    [
        ("privacy.epsilon", "shipped config quickstart: [privacy] epsilon"),
        ("privacy.delta", "--set: [privacy] delta"),
        ("data.root = '/a b'", "shipped config quickstart: [data] root = '/a b'"),
        ("model", "shipped config quickstart: [model]"),
        ("training.early_stopping.patience", "--set: [training.early_stopping] patience"),
        ("model.width", "shipped config quickstart: [model] width"),
    ],
)
def test_a_field_is_shown_where_it_was_given(field, place):
    assert LOADED.place_of(field) == place


@pytest.mark.parametrize(
    "other",
    ["", "/data/privacy.json", "--seeds", "privacy.nothing", "epsilons", "Privacy", "config.toml", "model.width.x"],
)
def test_all_else_is_left_as_it_is(other):
    assert LOADED.place_of(other) == other


def test_errors_within_are_located_and_stay_what_they_are():
    with pytest.raises(InputError) as caught, LOADED.locating():
        raise InputError("is too small", where="privacy.delta, training.epochs", remedy="Choose more.")
    assert str(caught.value) == (
        "--set: [privacy] delta, shipped config quickstart: [training] epochs: is too small. Choose more."
    )
    with pytest.raises(RunError, match=r"^privacy\.delta: full"), LOADED.locating():
        raise RunError("full", where="privacy.delta")


def test_without_overrides_all_is_of_the_file():
    loaded = LoadedConfig(config=LOADED.config, name="run", source="run/config.toml")
    assert loaded.place_of("privacy.delta") == "run/config.toml: [privacy] delta"
