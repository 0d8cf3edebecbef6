"""What places do to gradients: found where it is planted, and absent from shipped networks."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpmed.dpsgd.clipping import FlatClipping
from dpmed.dpsgd.noise import seeded_key
from dpmed.dpsgd.places import _sets, place_effect, without_zeros
from dpmed.dpsgd.step import PrivateStep, StepState
from dpmed.models.layers import Linear


def linear_step(outputs=1):
    weights, static = eqx.partition(Linear(5, outputs, key=jax.random.key(0)), eqx.is_inexact_array)
    optimizer = optax.sgd(0.1)

    def loss(trainable, rest, record):
        del rest
        return jnp.sum(jnp.tanh(eqx.combine(trainable, static)(record["x"])))

    step = PrivateStep(
        loss, clipping=FlatClipping(0.1), noise_multiplier=1.0, expected_batch_size=4, optimizer=optimizer,
        key=seeded_key(0), most_records=100,
    )  # fmt: skip
    return step, StepState(trainable=weights, rest=None, optimizer=None)


def same(records, value=1.0):
    x = value * np.random.default_rng(0).normal(size=(1, 5)).astype(np.float32)
    return {"x": np.repeat(x, records, axis=0)}


class Planted(PrivateStep):
    """A step in which the gradients of records at some places are longer by a share of their length."""

    def __init__(self, step, places, share):  # the real step does the rest
        self._step, self._places, self._share = step, places, share
        self.begin = step.begin

    def accumulate(self, state, total, records, mask):
        state, found = self._step.accumulate(state, total, records, mask)
        _, more = self._step.accumulate(state, self.begin(state), records, mask & np.isin(np.arange(9), self._places))

        def longer(whole, part):
            return np.asarray(whole) + self._share * np.asarray(part)

        return state, replace(found, gradients=jax.tree.map(longer, found.gradients, more.gradients))


@pytest.mark.usefixtures("as_shipped")
@pytest.mark.parametrize("records", [1, 2, 9, 12])
def test_a_shipped_layer_gives_all_places_the_same(records):
    step, state = linear_step()
    assert place_effect(step, state, same(records)) == 0.0


@pytest.mark.parametrize(("places", "wanted"), [([0], 8e-7), ([5], 1e-7), ([8], 1e-7), ([3, 7, 8], 3e-7)])
def test_what_is_planted_at_any_place_is_found_and_adds_up(places, wanted):
    step, state = linear_step()
    assert place_effect(Planted(step, places, 1e-7), state, same(9)) == pytest.approx(wanted, rel=1e-3)


def test_differences_that_are_opposite_to_the_last_bit_do_not_cancel_where_a_set_tells_them_apart():
    step, state = linear_step()
    groups = np.array([*_sets(9)])
    pairs = [(first, second) for second in range(2, 9) for first in range(1, second)]
    apart = [pair for pair in pairs if (groups[:, pair[0]] != groups[:, pair[1]]).any()]
    assert len(apart) > 0.75 * len(pairs)
    for pair in pairs:
        opposite = Planted(Planted(step, [pair[0]], 1e-7), [pair[1]], -1e-7)
        wanted = 2e-7 if pair in apart else 0.0
        assert place_effect(opposite, state, same(9)) == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(("count", "sets"), [(2, 0), (3, 1), (4, 2), (5, 2), (64, 2), (101, 2)])
def test_few_sets_divide_all_places_but_the_first_into_equal_groups(count, sets):
    found = np.array([*_sets(count)]).reshape(-1, count)
    assert len(found) == sets and not found[:, 0].any()
    _, sizes = np.unique(found[:, 1:], axis=1, return_counts=True)
    assert len(sizes) == min(count - 1, 4) and sizes.max() - sizes.min() <= 1


def test_a_record_that_counts_at_some_places_only_has_no_smaller_effect_than_any():
    step, state = linear_step()

    class Hidden(Planted):
        def accumulate(self, state, total, records, mask):
            return self._step.accumulate(state, total, records, mask & (np.arange(9) != 0))

    assert place_effect(Hidden(step, [], 0.0), state, same(9)) == np.inf


def test_what_the_margin_covers_is_not_reported():
    step, state = linear_step()
    assert place_effect(Planted(step, [8], 1e-14), state, same(9)) == 0.0


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_gradient_that_says_nothing_says_nothing(value):
    step, state = linear_step()
    assert place_effect(step, replace(state, trainable=jax.tree.map(lambda x: x * 0, state.trainable)), same(9)) == 0.0
    assert place_effect(step, state, same(9, value)) == 0.0


def test_only_leaves_of_zeros_are_replaced():
    _, state = linear_step(outputs=3)
    found = without_zeros(state.trainable)
    np.testing.assert_array_equal(found.weight, state.trainable.weight)
    assert np.all(np.asarray(found.bias))
    assert found.bias.dtype == np.float32
