"""Convolutions against slow loops, however their gradients are computed; weights by definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.models.convolution import Convolution, ConvolutionProduct, UpConvolution, centre, convolve, standardise


def plainly(x, weight, stride):
    """Output by a loop over positions and places in the filter."""
    kernel, sides = weight.shape[:-2], x.shape[:-1]
    padded = np.pad(x, [(side // 2, side // 2) for side in kernel] + [(0, 0)])
    out = [-(-side // stride) for side in sides]
    result = np.zeros((*out, weight.shape[-1]))
    for position in itertools.product(*map(range, out)):
        for place in itertools.product(*map(range, kernel)):
            where = tuple(stride * p + q for p, q in zip(position, place, strict=True))
            result[position] += padded[where] @ weight[place]
    return result


shapes = st.one_of(
    st.tuples(st.integers(1, 6), st.integers(1, 6)), st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
)


@settings(max_examples=8, deadline=None)
@given(shapes, st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 3, 5]), st.integers(1, 3), st.integers(0, 99))
def test_output_and_gradients_are_those_of_the_loop(space, channels_in, channels_out, size, stride, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, *space, channels_in)).astype(np.float32)
    weight = rng.normal(size=(*[size] * len(space), channels_in, channels_out)).astype(np.float32)
    found = jax.jit(jax.vmap(lambda image: convolve(image, jnp.asarray(weight), stride=stride)))(jnp.asarray(x))
    wanted = np.stack([plainly(image, weight, stride) for image in x])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    direction = rng.normal(size=wanted.shape).astype(np.float32)

    def response(weight, image, direction):
        return jnp.sum(convolve(image, weight, stride=stride) * direction)

    by_weight, by_image = jax.jit(jax.vmap(jax.grad(response, argnums=(0, 1)), in_axes=(None, 0, 0)))(
        *map(jnp.asarray, (weight, x, direction))
    )
    # Linear in both arguments, so the derivative along a direction is the response itself.
    for number in range(2):
        move = rng.normal(size=weight.shape).astype(np.float32)
        along = np.sum(plainly(x[number], move, stride) * direction[number])
        assert float(jnp.sum(by_weight[number] * move)) == pytest.approx(along, rel=1e-3, abs=1e-3)
        moved = rng.normal(size=x[number].shape).astype(np.float32)
        along = np.sum(plainly(moved, weight, stride) * direction[number])
        assert float(jnp.sum(by_image[number] * moved)) == pytest.approx(along, rel=1e-3, abs=1e-3)


def test_per_sample_gradients_add_up_to_that_of_the_batch_also_over_views():
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (3, 2, 6, 5, 2))
    layer = Convolution(2, 4, dimensions=2, kind="standardised", key=keys[1])

    def loss(weight, views):
        changed = jax.tree.map(lambda _: weight, layer)
        return jnp.sum(jax.vmap(lambda image: jnp.sum(jnp.sin(changed(image))))(views))

    each = jax.vmap(jax.grad(loss), in_axes=(None, 0))(layer.weight, x)
    one_by_one = jnp.stack([jax.grad(loss)(layer.weight, views) for views in x])
    np.testing.assert_allclose(each, one_by_one, rtol=2e-4, atol=2e-4)
    whole = jax.grad(lambda weight: loss(weight, x.reshape(6, 6, 5, 2)))(layer.weight)
    np.testing.assert_allclose(each.sum(0), whole, rtol=2e-4, atol=1e-3)


@pytest.mark.parametrize("space", [(64, 66), (16, 17, 16)])
def test_on_a_gpu_large_maps_have_the_same_gradients_by_one_operation_for_all_records(monkeypatch, space):
    product = ConvolutionProduct((3,) * len(space), 1, "centred")
    rng = np.random.default_rng(0)
    drawn = (rng.normal(size=(4, 2, *space, channels)).astype(np.float32) for channels in (2, 4))
    x, gradient = map(jnp.asarray, drawn)
    weight = jnp.asarray(rng.normal(size=(*[3] * len(space), 2, 4)).astype(np.float32))

    def gradients(x, gradient):
        return product.gradients(x, gradient, weight).all(jnp.float32)

    here = jax.jit(gradients)(x, gradient)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    np.testing.assert_allclose(gradients(x, gradient), here, rtol=1e-4, atol=1e-3)
    lowered = [jax.jit(gradients).lower(x[:count], gradient[:count]) for count in (2, 3)]
    operations = [one.as_text().count("stablehlo.convolution") for one in lowered]
    assert operations[0] == operations[1] > 0


@pytest.mark.parametrize("dimensions", [2, 3])
def test_centred_and_standardised_weights_are_so_by_definition(dimensions):
    weight = np.asarray(jax.random.normal(jax.random.key(1), (*[3] * dimensions, 4, 5))) * 3 + 1
    flat = weight.reshape(-1, 5)
    np.testing.assert_allclose(centre(jnp.asarray(weight)).reshape(-1, 5), flat - flat.mean(0), atol=1e-5)
    np.testing.assert_allclose(
        standardise(jnp.asarray(weight)).reshape(-1, 5), (flat - flat.mean(0)) / flat.std(0), atol=1e-5
    )
    assert np.isfinite(standardise(jnp.ones((3, 3, 1, 2)))).all()


def test_a_volume_of_depth_one_is_an_image():
    key = jax.random.key(2)
    weight = jax.random.normal(key, (3, 3, 2, 4))
    x = jax.random.normal(key, (7, 5, 2))
    volume = convolve(x[:, :, None], weight[:, :, None])
    np.testing.assert_allclose(volume[:, :, 0], convolve(x, weight), atol=1e-5)


@pytest.mark.parametrize("space", [(3, 2), (2, 3, 1)])
def test_a_transposed_convolution_makes_a_block_of_every_place(space):
    layer = UpConvolution(3, 2, dimensions=len(space), key=jax.random.key(3))
    x = jax.random.normal(jax.random.key(4), (*space, 3))
    found = layer(x)
    assert found.shape == (*[2 * side for side in space], 2)
    blocks = np.asarray(layer.weight).reshape(3, *[2] * len(space), 2)
    for place in itertools.product(*map(range, space)):
        for offset in itertools.product(range(2), repeat=len(space)):
            where = tuple(2 * p + o for p, o in zip(place, offset, strict=True))
            wanted = np.asarray(x)[place] @ blocks[(slice(None), *offset)]
            np.testing.assert_allclose(found[where], wanted, atol=1e-5)
