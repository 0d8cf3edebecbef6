"""Optimizers and schedules: compared with optax's own and with the formulas, update by update."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpmed.config.optimizer import (
    AdamOptimizer,
    AdamwOptimizer,
    LionOptimizer,
    NadamOptimizer,
    RmspropOptimizer,
    SgdOptimizer,
)
from dpmed.config.schedule import ConstantSchedule, CosineSchedule, PlateauSchedule, StepsSchedule
from dpmed.training.optim import build_optimizer, build_schedule, rate_factor, reduce_rate, schedule_warnings

CONSTANT = ConstantSchedule(name="constant")


@pytest.fixture(autouse=True)
def _as_users_run():
    """Optax does not support strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def rates(schedule, steps, *, rate=1.0, steps_per_epoch):
    made = build_schedule(schedule, rate, steps=steps, steps_per_epoch=steps_per_epoch)
    return [float(made(step)) for step in range(steps)]


def test_a_constant_rate_stays():
    assert rates(CONSTANT, 5, rate=0.1, steps_per_epoch=2) == pytest.approx([0.1] * 5)


def test_a_cosine_falls_to_its_share():
    found = rates(CosineSchedule(name="cosine", final=0.2), 10, rate=0.5, steps_per_epoch=5)
    wanted = [0.5 * (0.2 + 0.8 * (1 + np.cos(np.pi * step / 10)) / 2) for step in range(10)]
    assert found == pytest.approx(wanted, rel=1e-5)
    made = build_schedule(CosineSchedule(name="cosine", final=0.2), 0.5, steps=10, steps_per_epoch=5)
    assert float(made(10)) == float(made(15)) == pytest.approx(0.1)


def test_steps_drop_at_their_epochs_and_not_before():
    found = rates(StepsSchedule(name="steps", epochs=(1.0, 2.5), factor=0.5), 12, steps_per_epoch=4)
    assert found == pytest.approx([1.0] * 4 + [0.5] * 6 + [0.25] * 2)


def test_a_plateaus_own_rate_stays():
    assert rates(PlateauSchedule(name="plateau"), 4, steps_per_epoch=2) == pytest.approx([1.0] * 4)


@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        (ConstantSchedule(name="constant", warmup_epochs=2), [1.0] * 6),
        (PlateauSchedule(name="plateau", warmup_epochs=2), [1.0] * 6),
        (StepsSchedule(name="steps", warmup_epochs=2, epochs=(1.0,), factor=0.1), [1.0, 1.0, 0.1, 0.1, 0.1, 0.1]),
        (CosineSchedule(name="cosine", warmup_epochs=2), [(1 + np.cos(np.pi * step / 6)) / 2 for step in range(6)]),
    ],
    ids=lambda part: getattr(part, "name", ""),
)
def test_a_warmup_rises_linearly_and_then_the_schedule_begins(schedule, after):
    found = rates(schedule, 10, steps_per_epoch=2)
    assert found == pytest.approx([0.0, 0.25, 0.5, 0.75, *after], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(("epochs", "is_told"), [(0, False), (2, False), (2.5, True), (100, True)])
def test_a_warmup_as_long_as_the_run_is_told(epochs, is_told):
    schedule = ConstantSchedule(name="constant", warmup_epochs=epochs)
    told = schedule_warnings(schedule, steps=5, steps_per_epoch=2)
    assert len(told) == is_told and all(f"= {epochs:g}, but training has 2.5 epochs" in one for one in told)


def test_a_warmup_longer_than_the_run_ends_with_it():
    found = rates(ConstantSchedule(name="constant", warmup_epochs=100), 5, steps_per_epoch=2)
    assert found == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])


def trajectory(optimizer, gradients, start):
    weights, state, path = start, optimizer.init(start), []
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, weights)
        weights = optax.apply_updates(weights, updates)
        path.append(np.asarray(jax.tree.leaves(weights)[0]))
    return np.array(path)


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (SgdOptimizer(name="sgd", learning_rate=0.1), optax.sgd(0.1)),
        (SgdOptimizer(name="sgd", learning_rate=0.1, momentum=0.9, nesterov=True), optax.sgd(0.1, 0.9, nesterov=True)),
        (AdamOptimizer(name="adam", learning_rate=0.1), optax.adam(0.1)),
        (AdamOptimizer(name="adam", learning_rate=0.1, weight_decay=0.01), optax.adamw(0.1, weight_decay=0.01)),
        (AdamwOptimizer(name="adamw", learning_rate=0.1), optax.adamw(0.1, weight_decay=0.01)),
        (NadamOptimizer(name="nadam", learning_rate=0.1), optax.nadam(0.1)),
        (RmspropOptimizer(name="rmsprop", learning_rate=0.1), optax.rmsprop(0.1, decay=0.99)),
        (LionOptimizer(name="lion", learning_rate=0.1), optax.lion(0.1, weight_decay=0.0)),
    ],
    ids=lambda part: getattr(part, "name", ""),
)
def test_optimizers_are_optaxs(config, wanted):
    ours = build_optimizer(config, CONSTANT, steps=5, steps_per_epoch=1)
    start = {"w": jnp.asarray([1.0, -2.0])}
    gradients = [{"w": jnp.asarray([0.3, 0.1 * turn - 0.05])} for turn in range(4)]
    np.testing.assert_allclose(
        trajectory(ours, gradients, start), trajectory(wanted, gradients, start), rtol=1e-6, atol=1e-7
    )


def test_weight_decay_shrinks_weights_by_rate_times_decay_whatever_the_gradient():
    optimizer = build_optimizer(
        SgdOptimizer(name="sgd", learning_rate=0.5, weight_decay=0.1), CONSTANT, steps=3, steps_per_epoch=1
    )
    path = trajectory(optimizer, [{"w": jnp.zeros(1)}] * 3, {"w": jnp.ones(1)})
    np.testing.assert_allclose(path[:, 0], [0.95, 0.95**2, 0.95**3], rtol=1e-6)


def test_the_rate_of_each_update_is_the_schedules():
    schedule = CosineSchedule(name="cosine", warmup_epochs=1)
    optimizer = build_optimizer(SgdOptimizer(name="sgd", learning_rate=0.2), schedule, steps=8, steps_per_epoch=2)
    path = trajectory(optimizer, [{"w": jnp.ones(1)}] * 8, {"w": jnp.zeros(1)})
    moves = -np.diff(np.concatenate([[0.0], path[:, 0]]))
    np.testing.assert_allclose(moves, rates(schedule, 8, rate=0.2, steps_per_epoch=2), rtol=1e-4, atol=1e-6)


def test_a_reduced_rate_multiplies_the_moves_that_follow_down_to_the_smallest():
    schedule = PlateauSchedule(name="plateau", factor=0.5, smallest=0.2)
    optimizer = build_optimizer(SgdOptimizer(name="sgd", learning_rate=0.1), schedule, steps=9, steps_per_epoch=1)
    weights = {"w": jnp.zeros(1)}
    state, moves, factors = optimizer.init(weights), [], []
    for _ in range(4):
        updates, state = optimizer.update({"w": jnp.ones(1)}, state, weights)
        moves.append(-float(updates["w"][0]))
        factors.append(rate_factor(state))
        state = reduce_rate(state, 0.5, smallest=0.2)
    assert factors == pytest.approx([1.0, 0.5, 0.25, 0.2])
    assert moves == pytest.approx([0.1, 0.05, 0.025, 0.02])


def test_a_reduction_leaves_the_moments_as_they_are():
    optimizer = build_optimizer(
        NadamOptimizer(name="nadam", learning_rate=0.1), PlateauSchedule(name="plateau"), steps=9, steps_per_epoch=1
    )
    weights = {"w": jnp.ones(2)}
    _, state = optimizer.update({"w": jnp.asarray([0.5, -1.0])}, optimizer.init(weights), weights)
    reduced = reduce_rate(state, 0.5, smallest=0.0)
    for name in ("mu", "nu"):
        before, after = optax.tree.get(state, name), optax.tree.get(reduced, name)
        np.testing.assert_array_equal(before["w"], after["w"])


def test_other_schedules_have_a_factor_of_one():
    optimizer = build_optimizer(SgdOptimizer(name="sgd", learning_rate=0.1), CONSTANT, steps=9, steps_per_epoch=1)
    assert rate_factor(optimizer.init({"w": jnp.ones(1)})) == 1.0


@pytest.mark.parametrize(
    "config",
    [
        SgdOptimizer(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.1),
        AdamwOptimizer(name="adamw", learning_rate=0.1),
        NadamOptimizer(name="nadam", learning_rate=0.1),
        LionOptimizer(name="lion", learning_rate=0.1, weight_decay=0.1),
    ],
    ids=lambda config: config.name,
)
def test_leaves_do_not_move_before_their_time_and_then_carry_no_momentum_of_before(config):
    begins = {"head": 0, "stem": 3}
    optimizer = build_optimizer(config, CONSTANT, steps=6, steps_per_epoch=1, begins=begins)
    weights = {"head": jnp.ones(2), "stem": jnp.full(2, 2.0)}
    state = optimizer.init(weights)
    for step in range(3):
        # As in a private step, where noise reaches every leaf.
        noisy = {"head": jnp.asarray([0.3, -1.0]), "stem": jnp.asarray([5.0, -7.0]) * (step + 1)}
        updates, state = optimizer.update(noisy, state, weights)
        weights = optax.apply_updates(weights, updates)
        np.testing.assert_array_equal(weights["stem"], [2.0, 2.0])
        assert not np.allclose(updates["head"], 0.0)
    for name in ("mu", "nu", "trace"):
        moments = optax.tree.get(state, name, default=None)
        if moments is not None:
            np.testing.assert_array_equal(moments["stem"], [0.0, 0.0])
            assert np.all(np.asarray(moments["head"]) != 0.0)
    updates, state = optimizer.update({"head": jnp.zeros(2), "stem": jnp.ones(2)}, state, weights)
    assert np.all(np.asarray(updates["stem"]) < 0.0)
