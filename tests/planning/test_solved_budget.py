"""A batch larger than the training set is refused with the sizes that advice would suggest, which give a valid plan."""

import re

import pytest

from dpmed.config.load import load_config
from dpmed.errors import InputError
from dpmed.planning.solved_budget import budget_request, check_batch_size, naming_keys, solve


def config_of(*settings):
    return load_config("quickstart", list(settings)).config


def test_the_remedy_is_a_plan_and_not_a_full_batch():
    with pytest.raises(InputError) as caught:
        check_batch_size(config_of(), 300)
    assert caught.value.where == "training.batch_size"
    found = re.search(r"batch_size = (\d+) with training.epochs = (\d+), at σ = ([\d.]+)\.$", str(caught.value))
    batch_size, epochs = int(found[1]), int(found[2])
    assert batch_size <= 150
    followed = config_of(f"training.batch_size={batch_size}", f"training.epochs={epochs}")
    check_batch_size(followed, 300)
    assert f"{solve(followed, 300).noise_multiplier:.3g}" == found[3]


@pytest.mark.parametrize("settings", [["privacy="], ["privacy.epsilon=", "privacy.noise_multiplier=2"]])
def test_where_no_epsilon_is_asked_for_there_is_nothing_to_suggest(settings):
    with pytest.raises(InputError, match=r"Choose at most 300\.$"):
        check_batch_size(config_of(*settings), 300)


def test_without_privacy_there_is_no_budget():
    assert budget_request(config_of("privacy="), 300) is None and solve(config_of("privacy="), 300) is None


def test_errors_name_keys():
    with pytest.raises(InputError) as caught, naming_keys():
        raise InputError("is wrong", where="epsilon")
    assert caught.value.where == "privacy.epsilon"
