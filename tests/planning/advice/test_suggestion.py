"""What is suggested for a config, and that its overrides give the promised plan."""

import pytest

from dpmed.config.load import load_config
from dpmed.errors import InputError
from dpmed.planning.advice.suggestion import Setting, suggest
from dpmed.planning.solved_budget import solve
from tests.planning.advice.advised import SMALL, config_of

SIZE = 300


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["training.batch_size=5000"],
        ["privacy.epsilon=", "privacy.noise_multiplier=2"],
        ["training.epochs=", "privacy.noise_multiplier=2"],
        ["privacy.epsilon=", "privacy.max_reconstruction_risk=0.1", "privacy.adversary=worst-case"],
        ["privacy.accountant=rdp"],
    ],
)
def test_the_overrides_give_the_budget_that_was_promised(settings):
    config = config_of(*settings)
    found = suggest(config, SIZE)
    followed = load_config("quickstart", [*SMALL, *settings, *found.setting.overrides(config)]).config
    assert solve(followed, SIZE) == found.sizes.budget
    assert followed == found.setting.applied(config)
    asked = config.privacy.epsilon
    assert asked is None or found.sizes.budget.epsilon <= asked * (1 + 1e-9)


def test_noise_that_was_stated_is_held_by_its_epsilon():
    config = config_of("privacy.epsilon=", "privacy.noise_multiplier=2")
    own = solve(config, SIZE)
    assert suggest(config, SIZE).setting.epsilon == own.epsilon


def test_learning_rate_times_steps_is_kept_within_a_factor_of_three():
    found = suggest(config_of("training.batch_size=150", "training.epochs=75"), SIZE)
    assert found.own.budget.steps == 150
    assert found.setting.learning_rate == pytest.approx(0.01 * 150 / found.sizes.budget.steps, rel=0.01)
    assert suggest(config_of("training.epochs=400"), SIZE).setting.learning_rate == pytest.approx(0.03)


@pytest.mark.parametrize(("given", "wanted"), [(1e-3, 3e-3), (4e-3, 5e-3), (0.02, 0.02)])
def test_adams_kin_travel_half_a_unit_at_least_by_at_most_three_times_the_rate(given, wanted):
    sizes = suggest(config_of("training.epochs=400"), SIZE).sizes
    epochs, steps = sizes.epochs, sizes.budget.steps
    alike = [f"training.batch_size={sizes.batch_size}", f"training.epochs={epochs}"]
    found = suggest(config_of(*alike, f"optimizer.learning_rate={given * 100 / steps}"), SIZE)
    assert found.own.budget.steps == found.sizes.budget.steps
    assert found.setting.learning_rate == pytest.approx(wanted * 100 / steps, rel=0.01)
    plain = [*alike, "optimizer.name=sgd", "optimizer.learning_rate=1e-4"]
    assert suggest(config_of(*plain), SIZE).setting.learning_rate == pytest.approx(1e-4)


def test_a_large_clipping_norm_comes_down_and_plain_descent_makes_up_for_it():
    large = ["privacy.clipping_norm=4", "training.epochs=400"]
    assert suggest(config_of(*large), SIZE).setting.clipping_norm == 1.0
    assert suggest(config_of(*large), SIZE).setting.learning_rate == pytest.approx(0.03)
    assert suggest(config_of(*large, "optimizer.name=sgd"), SIZE).setting.learning_rate == pytest.approx(0.12)
    assert suggest(config_of(*large, "privacy.clipping=automatic"), SIZE).setting.clipping_norm == 4.0


def test_training_without_privacy_is_refused():
    with pytest.raises(InputError) as caught:
        suggest(config_of("privacy="), SIZE)
    assert caught.value.where == "privacy"
    setting = Setting(batch_size=1, epochs=1, learning_rate=0.1, clipping_norm=1.0, epsilon=1.0)
    with pytest.raises(ValueError, match="private"):
        setting.applied(config_of("privacy="))
