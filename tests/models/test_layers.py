"""Layers against their definitions in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.models.layers import (
    FrozenNorm,
    GroupNorm,
    LayerNorm,
    Linear,
    average_pool,
    average_to,
    constants,
    max_pool,
    mish,
)


def mish_by_definition(x):
    return x * np.tanh(np.logaddexp(0, x))


def test_mish_and_its_slope_are_the_definition_from_far_below_to_far_above_zero():
    x = np.concatenate([np.linspace(-100, 100, 4001), [-1e30, -88, 88, 1e30]])
    step = 1e-6 * np.maximum(np.abs(x), 1)
    slope = (mish_by_definition(x + step) - mish_by_definition(x - step)) / (2 * step)
    single = jnp.asarray(x, jnp.float32)
    np.testing.assert_allclose(mish(single), mish_by_definition(x), rtol=2e-6, atol=1e-30)
    np.testing.assert_allclose(jax.vmap(jax.grad(mish))(single), slope, rtol=1e-5, atol=1e-6)


def normalised(x, scale, shift, groups):
    grouped = x.reshape(-1, groups, x.shape[-1] // groups)
    centred = grouped - grouped.mean(axis=(0, 2), keepdims=True)
    normal = centred / np.sqrt(np.mean(centred**2, axis=(0, 2), keepdims=True) + 1e-5)
    return normal.reshape(x.shape) * scale + shift


@pytest.mark.parametrize("shape", [(6, 5, 8), (3, 4, 2, 6), (1, 1, 4), (9, 4)])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_group_norm_is_the_definition_also_for_a_mean_far_from_zero(shape, offset):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=shape) + offset).astype(np.float32)
    layer = GroupNorm(shape[-1], 2)
    scale, shift = rng.normal(size=(2, shape[-1])).astype(np.float32)
    layer = jax.tree.unflatten(jax.tree.structure(layer), [jnp.asarray(scale), jnp.asarray(shift)])
    wanted = normalised(x.astype(np.float64), scale, shift, 2)
    np.testing.assert_allclose(layer(jnp.asarray(x)), wanted, rtol=1e-4, atol=2e-5)


def test_the_gradient_of_group_norm_is_that_of_the_two_pass_formula():
    rng = np.random.default_rng(1)
    x = jnp.asarray(3 + rng.normal(size=(5, 4, 8)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=x.shape), jnp.float32)

    def two_passes(x):
        grouped = x.reshape(-1, 4, 2)
        centred = grouped - jnp.mean(grouped, axis=(0, 2), keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=(0, 2), keepdims=True)
        return (centred / jnp.sqrt(variance + 1e-5)).reshape(x.shape)

    found = jax.grad(lambda x: jnp.sum(jnp.sin(GroupNorm(8, 4)(x)) * weights))(x)
    wanted = jax.grad(lambda x: jnp.sum(jnp.sin(two_passes(x)) * weights))(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_constant_image_is_normalised_to_the_shift():
    np.testing.assert_allclose(GroupNorm(4, 2)(jnp.full((3, 3, 4), 7.0)), np.zeros((3, 3, 4)), atol=1e-6)


@pytest.mark.parametrize("pool,reduce", [(max_pool, np.max), (average_pool, np.mean)])
def test_pools_reduce_windows_of_two_and_leave_an_odd_row_out(pool, reduce):
    x = np.random.default_rng(2).normal(size=(5, 4, 3)).astype(np.float32)
    wanted = [[reduce(x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2], axis=(0, 1)) for j in range(2)] for i in range(2)]
    np.testing.assert_allclose(pool(jnp.asarray(x)), np.asarray(wanted), rtol=1e-6)


@pytest.mark.parametrize("side", [2, 3, 5, 8, 1])
def test_averages_are_torchs_adaptive_ones(side):
    x = np.arange(side * 4, dtype=np.float32).reshape(side, 4, 1) ** 2
    found = average_to(jnp.asarray(x), 2)[..., 0]
    rows = [slice(i * side // 2, -(-(i + 1) * side // 2)) for i in range(2)]
    wanted = [[x[row, column, 0].mean() for column in (slice(0, 2), slice(2, 4))] for row in rows]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_pooling_in_three_dimensions_leaves_out_odd_rows():
    x = np.random.default_rng(0).normal(size=(4, 5, 2, 3)).astype(np.float32)
    blocks = x[:, :4].reshape(2, 2, 2, 2, 1, 2, 3)
    np.testing.assert_allclose(max_pool(jnp.asarray(x)), blocks.max(axis=(1, 3, 5)), rtol=1e-6)
    np.testing.assert_allclose(average_pool(jnp.asarray(x)), blocks.mean(axis=(1, 3, 5)), rtol=1e-5, atol=1e-6)


def test_a_linear_layer_is_weight_times_input_plus_bias():
    layer = Linear(3, 2, key=jax.random.key(0))
    x = np.arange(3, dtype=np.float32)
    np.testing.assert_allclose(layer(jnp.asarray(x)), np.asarray(layer.weight) @ x, rtol=1e-6)


def test_layer_norm_normalises_each_position_by_itself():
    x = np.random.default_rng(0).normal(3, 2, (5, 4)).astype(np.float32)
    wide = x.astype(np.float64)
    wanted = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(LayerNorm(4)(jnp.asarray(x)), wanted, rtol=1e-4, atol=1e-5)


def test_a_frozen_norm_is_batch_norm_in_inference_and_its_statistics_are_constants():
    rng = np.random.default_rng(0)
    scale, shift, mean, variance = rng.uniform(0.5, 2, (4, 3)).astype(np.float32)
    layer = jax.tree.unflatten(jax.tree.structure(FrozenNorm(3)), [scale, shift, mean, variance])
    x = rng.normal(size=(4, 5, 3)).astype(np.float32)
    wanted = (x - mean) / np.sqrt(variance + 1e-5) * scale + shift
    np.testing.assert_allclose(jax.tree.map(jnp.asarray, layer)(jnp.asarray(x)), wanted, rtol=1e-5, atol=1e-5)
    marked = constants({"a": layer, "b": GroupNorm(4, 2)})
    assert (marked["a"].scale, marked["a"].shift, marked["a"].mean, marked["a"].variance) == (False, False, True, True)
    assert not any(jax.tree.leaves(marked["b"]))


def test_a_linear_layer_maps_every_position():
    layer = Linear(3, 2, key=jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_allclose(layer(jnp.asarray(x)), x @ np.asarray(layer.weight).T, rtol=1e-4, atol=1e-6)
