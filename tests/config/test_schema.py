"""Rules that hold between tables."""

import itertools
import json

import pytest
from pydantic import ValidationError

from dpmed.config.schema import Config

BASE = {
    "data": {"name": "digits"},
    "model": {"name": "mlp"},
    "loss": {"name": "cross_entropy"},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "training": {"batch_size": 8},
}
TARGETS = {
    "epsilon": ("privacy", 8.0),
    "noise_multiplier": ("privacy", 1.0),
    "epochs": ("training", 3),
}


def make(*, privacy=None, training=None, **tables):
    table = {**BASE, **tables, "training": {**BASE["training"], **(training or {})}}
    if privacy is not None:
        table["privacy"] = {"delta": 1e-5, "clipping_norm": 1.0, **privacy}
    return Config.model_validate_json(json.dumps(table))


def with_targets(given, **privacy):
    training = {}
    for name in given:
        place, value = TARGETS[name]
        (privacy if place == "privacy" else training)[name] = value
    return make(privacy=privacy, training=training)


@pytest.mark.parametrize("given", [given for n in range(4) for given in itertools.combinations(TARGETS, n)])
def test_exactly_two_of_three_determine_a_private_run(given):
    if len(given) == 2:
        assert with_targets(given).privacy is not None
    else:
        with pytest.raises(ValidationError, match=f"the config gives {'none' if not given else 'privacy|training'}"):
            with_targets(given)


def test_a_run_without_privacy_needs_its_epochs():
    assert make(training={"epochs": 1}).privacy is None
    with pytest.raises(ValidationError, match=r"training\.epochs is missing"):
        make()


def test_a_risk_stands_in_the_place_of_epsilon_and_names_its_adversary():
    risk = {"max_reconstruction_risk": 0.1, "adversary": "relaxed"}
    assert with_targets(["epochs"], **risk).privacy.adversary == "relaxed"
    for given in (["epochs", "epsilon"], ["noise_multiplier"], []):
        with pytest.raises(ValidationError, match="max_reconstruction_risk needs"):
            with_targets(given, **risk)
    with pytest.raises(ValidationError, match="together or not at all"):
        with_targets(["epochs"], max_reconstruction_risk=0.1)
    with pytest.raises(ValidationError, match="together or not at all"):
        with_targets(["epochs", "epsilon"], adversary="relaxed")


def test_no_noise_brings_the_risk_under_what_guessing_reaches():
    risk = {"max_reconstruction_risk": 0.1, "adversary": "relaxed"}
    assert with_targets(["epochs"], **risk, prior=0.09).privacy.prior == 0.09
    with pytest.raises(ValidationError, match=r"is not above privacy\.prior"):
        with_targets(["epochs"], **risk, prior=0.1)
    with pytest.raises(ValidationError, match=r"privacy\.prior is only meaningful with"):
        with_targets(["epochs", "epsilon"], prior=0.1)


KINDS = ("flat", "automatic", "per-layer", "adaptive")


@pytest.mark.parametrize("clipping", KINDS)
def test_a_norm_that_leaves_float32_no_room_is_refused_where_it_is_divided_by_or_moves(clipping):
    privacy = {"clipping": clipping, "clipping_norm": 2e6}
    if clipping in ("flat", "per-layer"):
        with_targets(["epochs", "epsilon"], **privacy)
    else:
        with pytest.raises(ValidationError, match="above 1e\\+06"):
            with_targets(["epochs", "epsilon"], **privacy)


def test_frozen_statistics_come_from_a_file_of_plain_filters():
    model = {"name": "resnet18", "normalisation": "frozen", "pretrained": "weights.safetensors"}
    assert make(training={"epochs": 1}, model=model).model.normalisation == "frozen"
    for changes, word in (({"pretrained": None}, "give model.pretrained"), ({"convolution": "centred"}, "plain")):
        with pytest.raises(ValidationError, match=word):
            make(training={"epochs": 1}, model=model | changes)
