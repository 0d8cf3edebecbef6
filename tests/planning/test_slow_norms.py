"""What the plan says about a network's arrays that the fast norms do not support."""

import equinox as eqx
import jax
import jax.numpy as jnp

from dpmed.models.build import BuiltModel
from dpmed.models.custom import Custom
from dpmed.planning.slow_norms import norms_by_layer


class Net(eqx.Module):
    first: eqx.nn.Linear
    twice: eqx.nn.Linear
    own: jax.Array
    norm: eqx.nn.LayerNorm

    def __call__(self, x, *, key=None):
        y = self.first(x.reshape(-1))
        return self.norm(self.twice(jnp.tanh(self.twice(y)))) @ self.own


def built(net):
    module = Custom(net)
    return BuiltModel(module=module, state=None, mixes_samples=False, stages=None, trained=None, parameters=0)


def test_arrays_used_twice_and_those_of_ones_own_are_named_with_their_cost():
    key = jax.random.key(0)
    net = Net(eqx.nn.Linear(4, 8, key=key), eqx.nn.Linear(8, 8, key=key), jnp.ones((8, 100)), eqx.nn.LayerNorm(8))
    found = norms_by_layer(built(net), (2, 2, 1))
    assert {(one.weight, one.bytes_per_record) for one in found.slow} == {(".twice.weight", 256), (".own", 3200)}
    assert found.fast == 5
    text = found.describe(64)
    assert "fast for 5 of 7 arrays" in text and ".own (3.2 kB), .twice.weight (256 B)" in text
    assert "3.46 kB per record, 221 kB for a microbatch of 64" in text


def test_a_network_of_known_layers_is_fast_throughout():
    class Known(eqx.Module):
        layer: eqx.nn.Linear

        def __call__(self, x, *, key=None):
            return self.layer(x.reshape(-1))

    found = norms_by_layer(built(Known(eqx.nn.Linear(4, 3, key=jax.random.key(0)))), (2, 2, 1))
    assert found.slow == () and found.describe(8) == "fast for all 2 arrays"
