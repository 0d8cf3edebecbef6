"""Fast convolutions against slow loops and XLA's in float64, under every transformation that a training uses."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.dpsgd.bookkeeping import bookkeeping_pass
from dpmed.dpsgd.clipped_sum import sum_clipped
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.layer_tags import plain_programs
from dpmed.models.convolution import Convolution, convolve
from dpmed.models.kernels import winograd
from tests.models.test_convolution import plainly

WIDE = 64


@pytest.fixture
def always(monkeypatch):
    """All sizes are computed in the fast way."""
    for name in ("_FEWEST_CHANNELS", "_FEWEST_TILES", "_FEWEST_TILES_OF_RECORD"):
        monkeypatch.setattr(winograd, name, 1)
    jax.clear_caches()  # programs lowered by other rules
    yield
    jax.clear_caches()


def drawn(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def close(found, wanted, share=5e-6):
    """Errors relative to the largest number, as tiles have them."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert np.abs(found - wanted).max() <= share * np.abs(wanted).max() + 1e-30


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_output_is_that_of_the_loop_for_even_and_odd_sides(height, width, channels_in, channels_out, seed):
    x, weight = drawn(seed, (2, height, width, channels_in), (3, 3, channels_in, channels_out))
    wanted = np.stack([plainly(np.asarray(image, np.float64), np.asarray(weight, np.float64), 1) for image in x])
    close(jax.jit(partial(winograd._convolved, mirrored=False))(x, weight), wanted)


@pytest.mark.parametrize("sides", [(16, 16), (15, 17)])
def test_it_is_as_exact_as_the_convolution_of_xla(sides):
    x, weight, direction = drawn(0, (5, *sides, WIDE), (3, 3, WIDE, WIDE + 2), (5, *sides, WIDE + 2))
    assert winograd.pays(x.shape, WIDE)

    def results(convolution, x, weight, direction):
        y, pull_back = jax.vjp(convolution, x, weight)
        return y, *pull_back(direction)

    exact = [np.asarray(one, np.float64) for one in (x, weight, direction)]
    with jax.enable_x64(True):
        wanted = [np.asarray(one) for one in results(winograd._by_xla, *map(jnp.asarray, exact))]
    fast = jax.jit(partial(results, winograd.convolve))(x, weight, direction)
    slow = jax.jit(partial(results, winograd._by_xla))(x, weight, direction)
    for ours, theirs, right in zip(fast, slow, wanted, strict=True):
        assert right.dtype == np.float64
        error, usual = (np.abs(np.asarray(one) - right).max() for one in (ours, theirs))
        assert error <= 4 * usual


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("sides", [(6, 4), (5, 3)])
def test_gradients_of_records_are_those_of_single_views_added_up(sides):
    x, gradient = drawn(1, (3, 2, *sides, 4), (3, 2, *sides, 5))
    found = jax.jit(winograd.filter_gradients)(x, gradient)
    for record in range(3):
        wanted = np.zeros((3, 3, 4, 5))
        for view in range(2):
            padded = np.pad(np.asarray(x[record, view], np.float64), ((1, 1), (1, 1), (0, 0)))
            for row, column in np.ndindex(3, 3):
                window = padded[row : row + sides[0], column : column + sides[1]]
                wanted[row, column] += np.einsum("hwc,hwk->ck", window, np.asarray(gradient[record, view], np.float64))
        close(found[record], wanted)


def test_the_bound_on_rounding_holds_and_follows_from_the_transforms():
    inputs = np.array([[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]])
    filters = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0, 0, 1]])
    outputs = np.array([[1, 1, 1, 0], [0, 1, 1, 1]])
    # Each transform works in two directions, so the norm of one direction counts twice.
    spectral = [np.linalg.norm(one, 2) ** 2 for one in (inputs, filters, outputs)]
    assert 2 * math.prod(spectral) <= winograd._MAGNIFICATION <= 1.02 * 2 * math.prod(spectral)
    # In float32 against float64, with numbers that nearly cancel.
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = (rng.normal(size=(2, 1, 7, 6, 3)) + 100).astype(np.float32)
        gradient = rng.normal(size=(2, 1, 7, 6, 4)).astype(np.float32)
        found = np.asarray(jax.jit(winograd.filter_gradients)(*map(jnp.asarray, (x, gradient))), np.float64)
        with jax.enable_x64(True):
            exact = [jnp.asarray(one, jnp.float64) for one in (x, gradient)]
            wanted = np.asarray(winograd.filter_gradients(*exact))
        for record in range(2):
            lengths = np.linalg.norm(x[record].astype(float)) * np.linalg.norm(gradient[record].astype(float))
            error = np.linalg.norm(found[record] - wanted[record])
            assert 0 < error <= winograd.rounding(x.shape[1:]) * 2.0**-24 * lengths


@pytest.mark.usefixtures("always")
def test_transformations_give_what_they_give_for_the_convolution_of_xla():
    x, weight, move = drawn(2, (2, 3, 6, 5, 4), (2, 3, 3, 4, 3), (3, 3, 4, 3))

    def curved(convolution, weight, images):
        return jnp.sum(jnp.sin(convolution(images, weight)))

    def all_of(convolution):
        over_images = jax.vmap(convolution, in_axes=(1, None), out_axes=1)(x, weight[0])
        over_weights = jax.vmap(convolution, in_axes=(None, 0))(x[0], weight)
        over_both = jax.vmap(convolution)(x, weight)
        along = jax.jvp(lambda weight: convolution(x[0], weight), (weight[0],), (move,))[1]
        each = jax.vmap(jax.grad(partial(curved, convolution)), in_axes=(None, 0))(weight[0], x)
        slope = jax.grad(partial(curved, convolution))
        twice = jax.jvp(lambda weight: slope(weight, x[0]), (weight[0],), (move,))[1]
        return over_images, over_weights, over_both, along, each, twice

    for ours, theirs in zip(jax.jit(all_of, static_argnums=0)(winograd.convolve),
                            jax.jit(all_of, static_argnums=0)(winograd._by_xla), strict=True):  # fmt: skip
        assert ours.shape == theirs.shape
        close(ours, theirs, 2e-5)


def test_the_way_is_chosen_when_the_size_of_the_batch_is_known():
    (weight,) = drawn(0, (3, 3, WIDE, WIDE))
    many = jax.vmap(lambda image: convolve(image, weight))

    def lowered(function, *shape):
        return jax.jit(function).lower(jnp.zeros(shape)).as_text()

    assert "stablehlo.convolution" not in lowered(many, 4, 16, 16, WIDE)
    assert "stablehlo.convolution" in lowered(many, 1, 16, 14, WIDE)
    with plain_programs():
        assert "stablehlo.convolution" in lowered(many, 6, 16, 16, WIDE)


def test_gradients_of_filters_are_the_convolutions_own_on_other_devices(monkeypatch):
    (weight,) = drawn(0, (3, 3, WIDE, WIDE))
    x = jnp.zeros((4, 32, 32, WIDE))

    def convolutions():
        back = jax.grad(lambda weight: jnp.sum(jax.vmap(lambda image: convolve(image, weight))(x)))
        return str(jax.make_jaxpr(back)(weight)).count("conv_general_dilated")

    here = convolutions()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert (here, convolutions()) == (0, 1)


@pytest.mark.usefixtures("always")
def test_what_is_not_finite_stays_in_its_record():
    x, weight = drawn(3, (3, 6, 6, 2), (3, 3, 2, 2))
    spoilt = x.at[1, 2, 2, 0].set(jnp.nan).at[1, 4, 4, 1].set(jnp.inf)
    found, wanted = jax.jit(winograd.convolve)(spoilt, weight), jax.jit(winograd.convolve)(x, weight)
    for record in (0, 2):
        np.testing.assert_array_equal(found[record], wanted[record])
    assert not np.isfinite(np.asarray(found[1])).all()


def test_a_record_moves_a_sum_of_wide_layers_by_no_more_than_the_sensitivity():
    # Wide and large enough that outputs, gradients of images and of filters are all computed in the fast way.
    (x,) = drawn(4, (4, 32, 32, WIDE))
    x = x * jnp.asarray([1e-6, 1.0, 5.0, 1.0])[:, None, None, None]
    layers = [Convolution(WIDE, WIDE, dimensions=2, key=jax.random.key(n)) for n in range(2)]
    assert winograd.pays(x.shape, WIDE)
    assert winograd.gradients_pay((4, 1, 32, 32, WIDE), WIDE)

    def loss(layers, image):
        first, second = layers
        return jnp.sum(jnp.sin(second(jnp.tanh(first(image))))) / 100

    def summed(layers, x, mask):
        books = bookkeeping_pass(loss, layers, x)
        assert set(books.layers) == {0, 1}
        return sum_clipped(books, mask, clipping=FlatClipping(1.0), most_records=4)

    compiled = jax.jit(summed)
    everybody = compiled(layers, x, jnp.ones(4, bool))
    # Each record alone, with XLA's convolutions and per-record gradients.
    alone = []
    for image in x:
        with plain_programs():
            gradient = np.concatenate([np.ravel(one) for one in jax.tree.leaves(jax.grad(loss)(layers, image))])
        alone.append(gradient / max(1.0, np.linalg.norm(gradient)))
    total = np.concatenate([np.ravel(one) for one in everybody.gradients])
    close(total, np.sum(alone, axis=0), 1e-4)
    for left_out in range(4):
        others = compiled(layers, x, jnp.arange(4) != left_out)
        moved = [np.ravel(a) - np.ravel(b) for a, b in zip(everybody.gradients, others.gradients, strict=True)]
        assert np.linalg.norm(np.concatenate(moved)) <= float(everybody.sensitivity)
