"""The product of rows against NumPy's, and the law that shipped layers treat every row of a batch alike.

What layers become depends on the compiler, so the law is tested on results: all records are the same, hence all results
must have the same bits, forward and back. Records are few and odd in number, so that rows are left over.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.layer_tags import plain_programs
from dpmed.models.convolution import ConvolutionProduct
from dpmed.models.kernels.rows import in_whole_tiles, is_narrow, multiply_rows
from dpmed.models.layers import LinearProduct
from dpmed.runtime.jit import Compiled

NARROW = [(16, 1), (1, 16), (4, 2), (2, 5), (1, 1)]
LINEAR = LinearProduct()
POINTWISE, PATCHES = ConvolutionProduct((1, 1), 1, "plain"), ConvolutionProduct((3, 3), 1, "centred")
VOXELS, VOLUMES = ConvolutionProduct((1, 1, 1), 1, "plain"), ConvolutionProduct((3, 3, 3), 1, "plain")
# A layer, its inputs' shape without channels, its weight.
LAYERS = [
    *((LINEAR, (), (outputs, inputs)) for inputs, outputs in [*NARROW, (64, 10)]),
    *((LINEAR, (3,), (outputs, inputs)) for inputs, outputs in [*NARROW, (24, 72)]),
    *((POINTWISE, (3, 3), (1, 1, *channels)) for channels in [*NARROW, (16, 3)]),
    *((VOXELS, (3, 1, 3), (1, 1, 1, *channels)) for channels in NARROW),
    *((PATCHES, (5, 5), (3, 3, *channels)) for channels in [(3, 1), (1, 3), (64, 64)]),
    *((VOLUMES, (3, 3, 3), (3, 3, 3, *channels)) for channels in [(3, 1), (1, 16), (16, 16)]),
]


def drawn(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def repeated(records, *shape):
    return jnp.repeat(drawn(1, *shape), records, axis=0)


@pytest.mark.parametrize("shape", [*NARROW, (5, 3)])
@pytest.mark.parametrize("positions", [(), (3,), (2, 3)])
def test_each_row_is_multiplied(shape, positions):
    rows, weight = drawn(4, *positions, shape[0]), drawn(*shape)
    wanted = np.asarray(rows) @ np.asarray(weight)

    def product(rows, weight):
        return jax.vmap(multiply_rows, in_axes=(0, None))(rows, weight)

    np.testing.assert_allclose(product(rows, weight), wanted, rtol=1e-5, atol=1e-6)
    with plain_programs():
        np.testing.assert_allclose(product(rows, weight), wanted, rtol=1e-5, atol=1e-6)
    back = drawn(*wanted.shape)
    by_rows, by_weight = jax.vjp(product, rows, weight)[1](back)
    np.testing.assert_allclose(by_rows, np.asarray(back) @ np.asarray(weight).T, rtol=1e-5, atol=1e-6)
    flat = np.asarray(rows).reshape(-1, shape[0]), np.asarray(back).reshape(-1, shape[1])
    np.testing.assert_allclose(by_weight, flat[0].T @ flat[1], rtol=1e-4, atol=1e-5)


def test_filters_of_one_place_are_matrices_and_others_are_not():
    assert is_narrow((1, 1, 16, 1))
    assert is_narrow((2, 16))
    assert not is_narrow((16, 16))
    assert not is_narrow((1, 1, 16, 1), stride=2)
    assert not is_narrow((3, 3, 16, 1))


def test_rows_that_fill_tiles_are_multiplied_as_they_are():
    rows, weight = drawn(64, 3), drawn(3, 1)
    np.testing.assert_array_equal(in_whole_tiles(rows[:50], weight), in_whole_tiles(rows, weight)[:50])


@pytest.mark.usefixtures("as_shipped")
@pytest.mark.parametrize("records", [3, 9])
@pytest.mark.parametrize(("product", "space", "shape"), LAYERS)
def test_every_record_is_rounded_alike(product, space, shape, records):
    inputs = shape[-1] if product is LINEAR else shape[-2]
    weight = drawn(*shape)

    def forward(x, weight):
        # With what surrounds it, into which the compiler may draw it.
        return jax.vmap(lambda one: jnp.tanh(product.apply(one, weight) + 0.5))(x)

    def everything(x, weight, gradient):
        y, back = jax.vjp(lambda x: forward(x, weight), x)
        return y, *back(gradient), product.gradients(x[:, None], gradient[:, None], weight).all(jnp.float32)

    x = repeated(records, *space, inputs)
    gradient = repeated(records, *jax.eval_shape(forward, x, weight).shape[1:])
    for found in Compiled(everything)(x, weight, gradient):
        np.testing.assert_array_equal(found, np.repeat(found[:1], records, axis=0))
