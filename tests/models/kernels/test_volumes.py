"""Convolutions of volumes against slow loops and XLA's, by every way and under every transformation of a training."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.layer_tags import plain_programs
from dpmed.models.kernels import volumes
from dpmed.models.kernels.bilinear import reflected
from dpmed.models.kernels.direct import by_xla
from tests.models.test_convolution import plainly

# Positions up to which patches are multiplied, and channels up to which gradients are thin: each way, at any size.
WAYS = {"planes": (0, 0), "patches": (10**6, 0), "thin": (0, 10**6)}


@pytest.fixture(params=list(WAYS))
def way(request, monkeypatch):
    for name, limit in zip(("_FEW_POSITIONS", "_THIN"), WAYS[request.param], strict=True):
        monkeypatch.setattr(volumes, name, limit)
    jax.clear_caches()  # programs lowered by other rules
    yield request.param
    jax.clear_caches()


def drawn(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def close(found, wanted, share=1e-5):
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=share * float(np.abs(wanted).max()))


def of_one(x, weight):
    return volumes.convolve(x, weight, 1)


def by_definition(x, weight):
    return by_xla(x[None], weight, 1)[0]


@settings(max_examples=6, deadline=None)
@given(st.tuples(*[st.integers(1, 4)] * 3), st.sampled_from([1, 3, 9]), st.integers(1, 3), st.integers(0, 99))
def test_output_is_that_of_the_loop(sides, channels_in, channels_out, seed):
    x, weight = drawn(seed, (2, *sides, channels_in), (3, 3, 3, channels_in, channels_out))
    wanted = np.stack([plainly(np.asarray(one, np.float64), np.asarray(weight, np.float64), 1) for one in x])
    for mirrored in (False, True):
        filters = reflected(weight) if mirrored else weight
        close(jax.jit(partial(volumes._convolved, mirrored=mirrored))(x, filters), wanted)
    close(jax.jit(volumes._by_patches)(x, weight), wanted)


@settings(max_examples=6, deadline=None)
@given(st.tuples(*[st.integers(1, 4)] * 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_thin_gradients_are_those_of_the_definition(sides, channels_in, channels_out, seed):
    x, gradient, weight = drawn(
        seed, (2, *sides, channels_in), (2, *sides, channels_out), (3, 3, 3, channels_in, channels_out)
    )
    wanted = jax.vjp(lambda weight: by_xla(x, weight, 1), weight)[1](gradient)[0]
    close(jax.jit(volumes.filter_gradients)(x, gradient), wanted)


@pytest.mark.usefixtures("way")
def test_transformations_give_what_they_give_for_the_definition():
    x, weight, move = drawn(2, (2, 3, 4, 5, 3, 4), (2, 3, 3, 3, 4, 3), (3, 3, 3, 4, 3))

    def curved(convolution, weight, image):
        return jnp.sum(jnp.sin(convolution(image, weight)))

    def all_of(convolution):
        over_images = jax.vmap(jax.vmap(convolution, in_axes=(0, None)), in_axes=(1, None), out_axes=1)(x, weight[0])
        over_weights = jax.vmap(convolution, in_axes=(None, 0))(x[0, 0], weight)
        over_both = jax.vmap(convolution)(x[:, 0], weight)
        along = jax.jvp(lambda weight: convolution(x[0, 0], weight), (weight[0],), (move,))[1]
        each = jax.vmap(jax.grad(partial(curved, convolution), argnums=(0, 1)), in_axes=(None, 0))(weight[0], x[0])
        slope = jax.grad(partial(curved, convolution), argnums=(0, 1))
        twice = jax.jvp(lambda weight: slope(weight, x[0, 0]), (weight[0],), (move,))[1]
        back_twice = jax.grad(lambda weight: jnp.sum(jnp.cos(slope(weight, x[0, 0])[1])))(weight[0])
        return jax.tree.leaves((over_images, over_weights, over_both, along, each, twice, back_twice))

    ours, theirs = (jax.jit(all_of, static_argnums=0)(one) for one in (of_one, by_definition))
    for found, wanted in zip(ours, theirs, strict=True):
        close(found, wanted, 5e-5)


def test_a_small_volume_of_many_channels_is_no_convolution_of_xla():
    def convolutions(*shape, channels=8):
        x, weight = drawn(0, (2, *shape, channels), (3, 3, 3, channels, channels))
        lowered = jax.jit(jax.vmap(of_one, in_axes=(0, None))).lower(x, weight)
        return lowered.as_text().count("stablehlo.convolution")

    assert convolutions(4, 4, 2) == 0
    assert convolutions(8, 8, 4) == 1  # of concatenated planes
    assert convolutions(8, 8, 4, channels=16) == 3


def test_converters_see_common_operations_alone():
    x, weight = drawn(0, (4, 4, 2, 3), (3, 3, 3, 3, 2))
    with plain_programs():
        program = str(jax.make_jaxpr(of_one)(x, weight))
    assert not re.search("stored|convolve_3x3x3", program)
