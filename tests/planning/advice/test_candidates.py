"""Settings to try: as many as requested, all different, the same for the same seed, and all trainable."""

import pytest

from dpmed.planning.advice.candidates import settings_around
from dpmed.planning.advice.suggestion import suggest
from dpmed.planning.solved_budget import solve
from tests.planning.advice.advised import config_of

SIZE = 300


def test_they_are_fixed_by_public_facts_and_the_seed():
    config = config_of()
    suggestion = suggest(config, SIZE)
    found = settings_around(suggestion, config, count=12, seed=3)
    assert found == settings_around(suggestion, config, count=12, seed=3)
    assert found != settings_around(suggestion, config, count=12, seed=4)
    assert found[:5] == settings_around(suggestion, config, count=5, seed=3)
    assert len(set(found)) == 12
    assert found[0] == suggestion.setting
    assert (found[1].batch_size, found[1].epochs, found[1].learning_rate) == (20, 4, 0.01)
    for setting in found[2:]:
        assert setting.batch_size / suggestion.setting.batch_size in (0.5, 1, 2)
        assert 10**-0.76 < setting.learning_rate / suggestion.setting.learning_rate < 10**0.76
    assert len({setting.clipping_norm for setting in found}) > 3


def test_each_spends_at_most_what_the_config_asks_for():
    config = config_of()
    for setting in settings_around(suggest(config, SIZE), config, count=4, seed=1):
        assert solve(setting.applied(config), SIZE).epsilon <= 8.0 * (1 + 1e-9)


@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_settings_whose_counts_would_take_all_noise_are_not_tried(noise):
    config = config_of("privacy.clipping.name=adaptive", f"privacy.clipping.count_noise={noise}")
    found = settings_around(suggest(config, SIZE), config, count=6, seed=1)
    drawn = found[2:]
    assert drawn and all(solve(one.applied(config), SIZE).noise_multiplier < 2 * noise for one in drawn)
    assert len({one.clipping_norm for one in found}) == 1
