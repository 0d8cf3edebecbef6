"""A network in two parts is the network."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.config.model import (
    MlpModel,
    Resnet9Model,
    Resnet18Model,
    Resnet50Model,
    SmallCnnModel,
    VitModel,
    WideResnetModel,
)
from dpmed.models.finetuning.trunk import features_of, head_of
from tests.models.made import build

TINY = {"channels": (2, 2, 4, 4), "groups": 2}


@pytest.mark.parametrize(
    ("config", "features"),
    [
        (MlpModel(name="mlp", width=(5,)), (5,)),
        (MlpModel(name="mlp", width=()), (64,)),
        (MlpModel(name="mlp", width=(5,), members=3), (3, 5)),
        (SmallCnnModel(name="small_cnn", channels=(4,), groups=2), (64,)),
        (Resnet9Model(name="resnet9", **TINY), (16,)),
        (Resnet18Model(name="resnet18", stem="small", **TINY), (4,)),
        (Resnet50Model(name="resnet50", stem="small", **TINY), (16,)),
        (VitModel(name="vit", patch=4, width=6, depth=1, heads=2), (6,)),
        (WideResnetModel(name="wide_resnet", depth=10, width=1), (64,)),
    ],
    ids=lambda one: getattr(one, "name", None),
)
def test_head_after_trunk_is_the_network(config, features):
    built = build(config, (8, 8, 1))
    weights, static = eqx.partition(built.module, eqx.is_inexact_array)
    rng = np.random.default_rng(0)
    model = eqx.combine(
        jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape, np.float32), weights), static
    )
    x = jnp.asarray(rng.standard_normal((8, 8, 1), np.float32))
    found = jax.jit(lambda x: features_of(model, x, None))(x)
    assert found.shape == features
    whole = jax.jit(lambda x: model(x, None)[0])(x)
    np.testing.assert_allclose(jax.jit(lambda y: head_of(model, y))(found), whole, rtol=1e-5, atol=1e-5)
    assert np.any(whole)
