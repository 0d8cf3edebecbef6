"""A kind of clipping is its name, or a table with that kind's own keys and no other's."""

import pytest

from dpmed.config.clipping import AdaptiveClippingConfig, AutomaticClippingConfig, FlatClippingConfig
from dpmed.config.load import config_from_toml, config_to_toml, load_config
from dpmed.errors import InputError


def clipping(*settings):
    config = load_config("quickstart", settings).config
    assert config.privacy is not None
    # What a run folder holds gives the same config again.
    assert config_from_toml(config_to_toml(config), "config.toml") == config
    return config.privacy.clipping


def test_a_name_stands_for_its_table():
    assert clipping() == FlatClippingConfig(name="flat")
    assert clipping("privacy.clipping=adaptive") == clipping("privacy.clipping.name=adaptive")
    assert clipping("privacy.clipping=adaptive", "privacy.clipping.rate=0.1") == AdaptiveClippingConfig(
        name="adaptive", rate=0.1
    )
    assert clipping('privacy.clipping={name="automatic",stability=0.5}') == AutomaticClippingConfig(
        name="automatic", stability=0.5
    )


@pytest.mark.parametrize("key", ["quantile=0.9", "rate=1", "count_noise=3"])
def test_keys_of_another_kind_are_refused(key):
    with pytest.raises(InputError, match="unknown key"):
        clipping("privacy.clipping=automatic", f"privacy.clipping.{key}")
    with pytest.raises(InputError, match="unknown key"):
        clipping(f"privacy.clipping.{key}", "privacy.clipping.name=flat")
