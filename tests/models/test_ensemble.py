"""Networks as one: the mean of their predictions, weights of their own, one key for each."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dpmed.config.model import MlpModel, SmallCnnModel
from dpmed.models.ensemble import Ensemble
from tests.models.made import build, check_gradients


def test_an_ensemble_predicts_the_mean_of_its_members():
    built = build(MlpModel(name="mlp", width=(), members=3), (2, 2, 1))
    members = [
        eqx.tree_at(lambda one: one.head.bias, member, jnp.full(3, float(n)))
        for n, member in enumerate(built.module.members)
    ]
    ensemble = eqx.tree_at(lambda one: one.members, built.module, members)
    np.testing.assert_allclose(ensemble(jnp.zeros((2, 2, 1)), None)[0], [1.0, 1.0, 1.0])


def test_members_begin_with_weights_of_their_own():
    first, second = build(MlpModel(name="mlp", width=(3,), members=2), (2, 2, 1)).module.members
    assert not np.array_equal(first.hidden[0].weight, second.hidden[0].weight)


def test_gradients_reach_every_member():
    check_gradients(SmallCnnModel(name="small_cnn", channels=(4,), groups=2, members=2), (8, 8, 1))


class Echo(eqx.Module):
    """Predicts the bits of its key."""

    def __call__(self, x, state, *, key=None):
        return (jnp.zeros(2) if key is None else jax.random.key_data(key).astype(jnp.float32)), state


def test_each_member_has_a_key_of_its_own():
    key = jax.random.key(7)
    expected = np.mean([np.asarray(jax.random.key_data(one), np.float32) for one in jax.random.split(key, 2)], axis=0)
    found, _ = Ensemble([Echo(), Echo()])(jnp.zeros(1), None, key=key)
    np.testing.assert_allclose(found, expected)
    np.testing.assert_array_equal(Ensemble([Echo(), Echo()])(jnp.zeros(1), None)[0], [0, 0])
