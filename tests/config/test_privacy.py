import json

import pytest
from pydantic import ValidationError

from dpmed.config.privacy import PrivacyConfig

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
