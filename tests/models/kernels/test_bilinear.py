"""A primitive made of a plain convolution behaves as that convolution, whichever gradient by filters it is given."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.models.kernels.bilinear import channels_out, convolution_primitive, reflected
from dpmed.models.kernels.direct import by_xla


def convolved(images, weight, *, mirrored):
    return by_xla(images, reflected(weight) if mirrored else weight, 1)


def transposed(images, gradient):
    shape = jax.ShapeDtypeStruct((3,) * (images.ndim - 2) + (images.shape[-1], gradient.shape[-1]), images.dtype)
    return jax.linear_transpose(lambda weight: by_xla(images, weight, 1), shape)(gradient)[0]


@pytest.mark.parametrize("given", [True, False], ids=["gradient given", "transpose"])
@pytest.mark.parametrize("sides", [(5, 4), (4, 3, 2)])
def test_values_and_derivatives_are_those_of_the_convolution(sides, given):
    calls = []

    def gradients(images, gradient):
        calls.append(gradient.shape)
        return transposed(images, gradient) if given else None

    primitive = convolution_primitive("made_of_xla", convolved, gradients)
    rng = np.random.default_rng(0)
    x, weight, weights = (
        jnp.asarray(rng.normal(size=size), jnp.float32)
        for size in ((2, 3, *sides, 4), (3,) * len(sides) + (4, 5), (2,) + (3,) * len(sides) + (4, 5))
    )

    def all_of(convolution):
        def curved(weight, images):
            return jnp.sum(jnp.sin(convolution(images, weight)))

        slope = jax.grad(curved, argnums=(0, 1))
        back = jax.grad(lambda weight: jnp.sum(jnp.cos(slope(weight, x[0])[1])))(weight)
        batches = jax.vmap(convolution, in_axes=(1, None), out_axes=1)(x.swapaxes(0, 1), weight)
        return slope(weight, x[0]), back, batches, jax.vmap(convolution)(x, weights)

    found = jax.jit(partial(all_of, partial(primitive.bind, mirrored=False)))()
    wanted = jax.jit(partial(all_of, lambda images, weight: by_xla(images, weight, 1)))()
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    assert calls


def test_the_cpu_has_a_way_of_its_own():
    primitive = convolution_primitive(
        "doubled", convolved, lambda *_: None, on_cpu=lambda *of, mirrored: 2 * convolved(*of, mirrored=mirrored)
    )
    x, weight = jnp.ones((1, 2, 2, 1)), jnp.ones((3, 3, 1, 1))
    np.testing.assert_array_equal(primitive.bind(x, weight, mirrored=False), 2 * by_xla(x, weight, 1))


def test_mirrored_filters_lead_back():
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 2, 5)))
    assert channels_out(weight, mirrored=False) == 5
    assert channels_out(weight, mirrored=True) == 2
    assert reflected(weight).shape == (3, 3, 5, 2)
    np.testing.assert_array_equal(reflected(weight)[0, 1], weight[2, 1].T)
    np.testing.assert_array_equal(reflected(reflected(weight)), weight)
