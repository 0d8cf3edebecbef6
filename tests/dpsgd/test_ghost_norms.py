"""Norms and weighted sums against one gradient at a time, for every kind of layer and both ways of computing them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.dpsgd import ghost_norms
from dpmed.dpsgd.bookkeeping import bookkeeping_pass
from dpmed.dpsgd.float64 import float64
from dpmed.dpsgd.ghost_norms import is_ghost_cheaper, measure, settle
from dpmed.models.convolution import Convolution, UpConvolution
from dpmed.models.layers import GroupNorm, Linear

KEY = jax.random.key(0)
RECORDS = 3


class Doubled(eqx.Module):
    """A layer applied twice: its weight is used twice, so it is not returned as a layer."""

    layer: Linear

    def __call__(self, x):
        return self.layer(jnp.tanh(self.layer(x)))


def convolution(dimensions, kind, stride, size):
    return Convolution(2, 3, dimensions=dimensions, key=KEY, size=size, kind=kind, stride=stride, bias=True)


LAYERS = {
    **{
        f"{kind} {dimensions}D stride {stride} size {size}": (
            convolution(dimensions, kind, stride, size),
            (*[5, 4, 6][:dimensions], 2),
        )
        for kind in ("plain", "centred", "standardised")
        for dimensions, stride, size in ((1, 1, 3), (2, 1, 3), (2, 2, 3), (2, 2, 1), (2, 3, 5), (3, 1, 3), (3, 2, 3))
    },
    "up 2D": (UpConvolution(2, 3, dimensions=2, key=KEY), (4, 3, 2)),
    "up 3D": (UpConvolution(2, 3, dimensions=3, key=KEY), (2, 3, 2, 2)),
    "linear": (Linear(7, 4, key=KEY), (7,)),
    "group norm": (GroupNorm(4, 2), (3, 5, 4)),
    "used twice": (Doubled(Linear(5, 5, key=KEY)), (5,)),
}


def problem(layer, shape, *, views, seed=0):
    trainable, static = eqx.partition(layer, eqx.is_inexact_array)

    def loss(trainable, record, scale):
        model = eqx.combine(trainable, static)
        # Versions, then views, as in the training's objective, with an axis moved in between.
        outputs = jax.vmap(jax.vmap(model, in_axes=1), in_axes=0)(record["x"])
        return scale * jnp.sum(jnp.square(jnp.sin(outputs)) * record["weight"])

    rng = np.random.default_rng(seed)
    records = {
        "x": rng.normal(size=(RECORDS, views, shape[0], 2, *shape[1:])).astype(np.float32),
        "weight": rng.normal(size=RECORDS).astype(np.float32),
    }
    return loss, trainable, jax.tree.map(jnp.asarray, records)


def one_at_a_time(loss, trainable, records, *others):
    """Values of the loss, and the gradients of each leaf."""
    both = jax.jit(jax.value_and_grad(loss))
    found = [both(trainable, jax.tree.map(lambda leaf, i=i: leaf[i], records), *others) for i in range(RECORDS)]
    per_record = [jax.tree.leaves(gradients) for _, gradients in found]
    gradients = [np.stack([np.asarray(one[leaf]) for one in per_record]) for leaf in range(len(per_record[0]))]
    return np.stack([value for value, _ in found]), gradients


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("name", list(LAYERS))
def test_norms_and_weighted_sums_are_those_of_single_gradients(name, views, monkeypatch):
    layer, shape = LAYERS[name]
    loss, trainable, records = problem(layer, shape, views=views)
    scale = jnp.float32(0.3)
    with float64():
        factors = jnp.asarray([0.5, 0.0, 2.0], jnp.float64)

    @jax.jit
    def run(trainable, records, scale):
        books = bookkeeping_pass(loss, trainable, records, scale)
        found = []
        # First every gradient is instantiated, then ghost norms are used wherever possible.
        for price in (0, 10**9) if books.layers else (0,):
            monkeypatch.setattr(ghost_norms, "_PRICE_OF_MEMORY", price)
            measured = measure(settle(books))
            found.append((measured.losses, measured.squares, measured.weighted_sum([factors] * len(measured.squares))))
        return found

    values, wanted = one_at_a_time(loss, trainable, records, scale)
    for losses, squares, sums in run(trainable, records, scale):
        np.testing.assert_allclose(losses, values, rtol=1e-5)
        for square, total, gradients in zip(squares, sums, wanted, strict=True):
            size = np.square(gradients).reshape(RECORDS, -1).sum(axis=1)
            np.testing.assert_allclose(square, size, rtol=2e-4, atol=1e-9)
            by_loop = np.tensordot(np.asarray(factors), gradients, axes=1)
            np.testing.assert_allclose(total, by_loop, rtol=1e-4, atol=1e-6 + 1e-5 * np.abs(by_loop).max())


@pytest.mark.parametrize("price", [0, 10**9], ids=["instantiated", "ghost"])
@pytest.mark.parametrize("name", ["centred 2D stride 1 size 3", "linear"])
def test_norms_are_exact_where_a_gradient_is_zero_tiny_or_huge(name, price, monkeypatch):
    monkeypatch.setattr(ghost_norms, "_PRICE_OF_MEMORY", price)
    loss, trainable, records = problem(*LAYERS[name], views=1)
    records = {**records, "weight": jnp.asarray([0.0, 1e-8, 1e8], jnp.float32)}
    measured = jax.jit(lambda: measure(settle(bookkeeping_pass(loss, trainable, records, jnp.float32(1)))).squares)()
    for square, gradients in zip(measured, one_at_a_time(loss, trainable, records, jnp.float32(1))[1], strict=True):
        size = np.square(gradients.astype(np.float64)).reshape(RECORDS, -1).sum(axis=1)
        np.testing.assert_allclose(square, size, rtol=2e-4)


@settings(max_examples=8, deadline=None)
@given(
    sides=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 3),
    kind=st.sampled_from(["plain", "centred", "standardised"]),
    seed=st.integers(0, 1000),
)
def test_convolutions_of_any_shape_have_the_norms_of_single_gradients(sides, channels, size, stride, kind, seed):
    inputs, outputs = channels
    layer = Convolution(inputs, outputs, dimensions=len(sides), key=KEY, size=size, kind=kind, stride=stride)
    loss, trainable, records = problem(layer, (*sides, inputs), views=1, seed=seed)

    @jax.jit
    def run(trainable, records):
        books = bookkeeping_pass(loss, trainable, records, jnp.float32(1))
        has_ghost = kind != "standardised"
        return ghost_norms.instantiate(books), ghost_norms._ghost(books.layers[0]) if has_ghost else None

    (found,), square = run(trainable, records)
    _, (wanted,) = one_at_a_time(loss, trainable, records, jnp.float32(1))
    size_of_each = np.square(wanted).reshape(RECORDS, -1).sum(axis=1)
    # With few standardised weights the gradient is zero except for rounding, for inputs and outputs of about 1.
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5 * max(1.0, np.abs(wanted).max()))
    if square is not None:
        # Ghost norms are at least a fixed share of the magnitudes.
        np.testing.assert_allclose(square, size_of_each, rtol=1e-3, atol=1e-3 * max(1e-4, size_of_each.max()))


def test_small_maps_of_many_channels_have_ghost_norms_and_large_maps_of_few_do_not():
    chosen = {}
    for side, channels in ((4, 64), (32, 8)):
        layer = Convolution(channels, channels, dimensions=2, key=KEY)
        loss, trainable, records = problem(layer, (side, side, channels), views=1)
        books = bookkeeping_pass(loss, trainable, records, jnp.float32(1))
        chosen[side] = is_ghost_cheaper(books.layers[0])
    assert chosen == {4: True, 32: False}


@pytest.mark.parametrize("price", [0, 10**9], ids=["instantiated", "ghost"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e38])
def test_a_record_beyond_float32_counts_as_zero_and_leaves_the_others_alone(bad, price, monkeypatch):
    monkeypatch.setattr(ghost_norms, "_PRICE_OF_MEMORY", price)
    layer, shape = LAYERS["centred 2D stride 1 size 3"]
    loss, trainable, records = problem(layer, shape, views=1)
    ruined = {**records, "weight": records["weight"].at[1].set(bad)}
    measured = measure(settle(bookkeeping_pass(loss, trainable, ruined, jnp.float32(1e6))))
    assert list(np.asarray(measured.usable)) == [True, False, True]
    with float64():
        ones, others = (jnp.asarray(values, jnp.float64) for values in ([1.0, 1.0, 1.0], [1.0, 0.0, 1.0]))
    sums = measured.weighted_sum([ones] * len(measured.squares))
    clean = measure(settle(bookkeeping_pass(loss, trainable, records, jnp.float32(1e6))))
    without = clean.weighted_sum([others] * len(clean.squares))
    for found, wanted in zip(sums, without, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * np.abs(np.asarray(wanted)).max())
