import json

import pytest
from pydantic import ValidationError

from dpmed.config.load import config_from_toml, config_to_toml, load_config
from dpmed.config.privacy import AdaptiveClippingConfig, AutomaticClippingConfig, FlatClippingConfig, PrivacyConfig
from dpmed.errors import InputError

LEAST = {"delta": 1e-5, "clipping_norm": 1.0}


def make(**table):
    return PrivacyConfig.model_validate_json(json.dumps({**LEAST, **table}))


def test_delta_and_the_clipping_norm_are_never_guessed():
    for missing in LEAST:
        with pytest.raises(ValidationError, match=missing):
            PrivacyConfig(**{key: value for key, value in LEAST.items() if key != missing})


def test_the_defaults_are_the_safe_ones():
    config = make()
    # The noise cannot be repeated, ε is the tight one, and what is protected is what is counted.
    assert (config.noise_source, config.accountant, config.clipping.name) == ("os-entropy", "pld", "flat")
    assert config.unit == "image" and config.cohort is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon": 0},
        {"epsilon": -1},
        {"epsilon": "8"},
        {"noise_multiplier": 0},
        {"delta": 0},
        {"delta": 1},
        {"clipping_norm": 0},
        {"clipping_norm": 9e-6},
        {"clipping": "none"},
        {"accountant": "gdp"},
        {"noise_source": "none"},
        {"unit": "hospital"},
        {"max_reconstruction_risk": 1},
        {"prior": 0},
        {"clipping": {"name": "adaptive", "quantile": 1}},
        {"cohort_epsilon": 0},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        make(**wrong)


@pytest.mark.parametrize("key", ["epsilon", "noise_multiplier", "delta", "clipping_norm"])
def test_no_number_of_the_budget_is_infinite(key):
    for text in ("Infinity", "NaN"):
        others = {name: value for name, value in LEAST.items() if name != key}
        with pytest.raises(ValidationError, match=key):
            PrivacyConfig.model_validate_json(json.dumps(others)[:-1] + f', "{key}": {text}}}')


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
