"""How far a weight lies from the head: written down by hand for small networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from dpmed.config.model import MlpModel, UnetModel
from dpmed.models.stages import stages_from_head
from tests.models.made import build


class Chain(eqx.Module):
    first: jax.Array
    nothing: int
    middle: tuple
    head: jax.Array

    def parts(self):
        return [self.first, self.nothing, self.middle, self.head]


def test_parts_are_counted_from_the_head_and_those_without_weights_are_not():
    chain = Chain(jnp.zeros(1), 3, (jnp.zeros(2), jnp.ones(3)), jnp.zeros(4))
    found = stages_from_head(chain)
    assert (found.first, found.middle, found.head, found.nothing) == (2, (1, 1), 0, None)


def test_a_weight_in_no_part_is_named():
    class Forgetful(Chain):
        def parts(self):
            return [self.first, self.head]

    with pytest.raises(ValueError, match="middle"):
        stages_from_head(Forgetful(jnp.zeros(1), 3, (jnp.zeros(2), jnp.ones(3)), jnp.zeros(4)))


def test_members_of_an_ensemble_are_equally_far():
    stages = build(MlpModel(name="mlp", width=(3, 2), members=2), (2, 2, 1)).stages
    first, second = (jax.tree.leaves(member) for member in stages.members)
    assert first == second and set(first) == {0, 1, 2}


def test_a_unets_deepest_level_lies_in_the_middle():
    stages = build(UnetModel(name="unet", channels=(2, 4), groups=2), (4, 4, 1), task="segmentation").stages
    assert set(jax.tree.leaves(stages.head)) == {0}
    assert set(jax.tree.leaves((stages.up, stages.merge))) == {1}
    assert set(jax.tree.leaves(stages.down[1])) == {2}
    assert set(jax.tree.leaves(stages.down[0])) == {3}
