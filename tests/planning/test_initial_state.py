"""The initial state of a training: the plan's weights, the optimizer's zeros, the clipping norm if it varies."""

import equinox as eqx
import jax
import numpy as np
import pytest

from dpmed.config.load import load_config
from dpmed.planning.initial_state import begin_training
from dpmed.planning.plan import make_plan
from dpmed.progress import Silent

SMALL = ["data.limit=120", "training.batch_size=16", "training.epochs=2", "model.width=[4]"]


def plan_of(*settings):
    return make_plan(load_config("quickstart", [*SMALL, *settings]).config, Silent())


def leaves(tree):
    return jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))


def test_all_weights_of_the_plans_model_are_there_trained_or_frozen():
    plan = plan_of("model.train_only=head")
    begun = begin_training(plan)
    trained, frozen = leaves(begun.state.trainable), leaves(begun.state.rest.frozen)
    whole = leaves(plan.model.module)
    assert len(trained) < len(whole)
    assert sum(leaf.size for leaf in trained) == plan.model.parameters
    known = sorted(np.asarray(leaf).tobytes() for leaf in whole)
    assert sorted(np.asarray(leaf).tobytes() for leaf in (*trained, *frozen)) == known


@pytest.mark.parametrize(("settings", "norm"), [([], None), (["privacy.clipping=adaptive"], 0.5), (["privacy="], None)])
def test_the_clipping_norm_is_part_of_the_state_where_it_moves(settings, norm):
    found = begin_training(plan_of(*settings)).state.clipping_norm
    assert (found is None) if norm is None else (float(found) == norm)


def test_the_moments_of_the_optimizer_begin_at_zero():
    begun = begin_training(plan_of())
    assert all(not np.any(leaf) for leaf in leaves(begun.state.optimizer))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "lion", "nadam"])
def test_the_optimizers_state_is_that_which_optax_makes_without_compiling(name):
    begun = begin_training(plan_of(f"optimizer.name={name}"))
    expected = begun.optimizer.init(begun.state.trainable)
    assert jax.tree.structure(begun.state.optimizer) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(begun.state.optimizer), jax.tree.leaves(expected), strict=True):
        assert (one.dtype, one.weak_type) == (other.dtype, other.weak_type)
        np.testing.assert_array_equal(one, other)
