"""The small networks: their layers by definition, their shapes and parameter counts, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from dpmed.config.model import MlpModel, SmallCnnModel
from dpmed.models.build import build_model
from dpmed.models.convolution import Convolution
from dpmed.models.layers import ACTIVATIONS, GroupNorm, Linear
from tests.models.made import check_gradients

KEY = jax.random.key(0)


def build(config, shape=(8, 8, 1), outputs=10, task="classification"):
    return build_model(config, shape, outputs=outputs, task=task, key=KEY)


def test_parameters_are_counted():
    assert build(MlpModel(name="mlp")).parameters == 64 * 64 + 64 + 64 * 10 + 10
    cnn = build(SmallCnnModel(name="small_cnn"), shape=(8, 8, 3))
    assert cnn.parameters == 9 * 3 * 16 + 32 + 9 * 16 * 32 + 64 + 4 * 32 * 10 + 10


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 12, 3), (8, 8, 8, 1)])
def test_models_give_logits_and_begin_undecided(shape):
    for config in (MlpModel(name="mlp"), SmallCnnModel(name="small_cnn")):
        built = build(config, shape=shape)
        logits, state = built.module(jnp.ones(shape), built.state)
        assert state is built.state
        np.testing.assert_array_equal(logits, np.zeros(10))


def test_a_convolution_is_a_correlation_with_zeros_around():
    layer = Convolution(2, 3, dimensions=2, key=KEY)
    image = np.random.default_rng(0).normal(size=(6, 5, 2)).astype(np.float32)
    weight = np.asarray(layer.weight)
    wanted = np.stack(
        [sum(signal.correlate(image[..., i], weight[..., i, o], mode="same") for i in range(2)) for o in range(3)],
        axis=-1,
    )
    np.testing.assert_allclose(layer(jnp.asarray(image)), wanted, rtol=1e-4, atol=1e-5)


def test_group_norm_makes_each_group_standard():
    image = jnp.asarray(np.random.default_rng(1).normal(3, 7, size=(5, 5, 8)).astype(np.float32))
    groups = np.asarray(GroupNorm(8, 2)(image)).reshape(25, 2, 4)
    np.testing.assert_allclose(groups.mean(axis=(0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(groups.std(axis=(0, 2)), 1, atol=1e-3)
    with pytest.raises(ValueError, match="groups"):
        GroupNorm(8, 3)


def test_linear_and_activations():
    layer = Linear(4, 3, key=KEY)
    x = jnp.asarray([1.0, -2.0, 0.5, 3.0])
    np.testing.assert_allclose(layer(x), np.asarray(layer.weight) @ np.asarray(x), rtol=1e-5)
    np.testing.assert_allclose(ACTIVATIONS["mish"](x), x * np.tanh(np.log1p(np.exp(np.asarray(x)))), rtol=1e-5)


def test_gradients_are_those_of_finite_differences():
    check_gradients(MlpModel(name="mlp", width=(5,)), (4, 4, 1))
