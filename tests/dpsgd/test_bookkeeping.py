"""Which layers a pass returns, and that inputs and gradients are those of each record."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.dpsgd.bookkeeping import bookkeeping_pass
from dpmed.dpsgd.ghost_norms import instantiate
from dpmed.models.convolution import Convolution, UpConvolution
from dpmed.models.layers import Linear

KEY = jax.random.key(0)
LAYERS = {
    "convolution": (Convolution(2, 3, dimensions=2, key=KEY, bias=True), (5, 4, 2)),
    "up": (UpConvolution(2, 3, dimensions=3, key=KEY), (2, 3, 2, 2)),
    "linear": (Linear(7, 4, key=KEY), (7,)),
}


def run(model, shape):
    trainable, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(trainable, record):
        return jnp.sum(jnp.sin(eqx.combine(trainable, static)(record)))

    records = jnp.asarray(np.random.default_rng(0).normal(size=(3, *shape)), jnp.float32)
    return bookkeeping_pass(loss, trainable, records), loss, trainable, records


@pytest.mark.parametrize("name", list(LAYERS))
def test_books_are_kept_of_tagged_layers_with_each_records_input(name):
    layer, shape = LAYERS[name]
    books, loss, trainable, records = run(layer, shape)
    (kept,) = books.layers.values()
    assert kept.weight.shape == layer.weight.shape
    np.testing.assert_array_equal(kept.x[:, 0], records)
    np.testing.assert_allclose(books.losses, [loss(trainable, record) for record in records], rtol=1e-4)
    # Other leaves, here a bias, have per-record gradients.
    (bias,) = books.gradients.values()
    for number, record in enumerate(records):
        np.testing.assert_allclose(bias.values[number], jax.grad(loss)(trainable, record).bias, rtol=1e-4, atol=1e-5)


class Doubled(eqx.Module):
    layer: Linear

    def __call__(self, x):
        return self.layer(jnp.tanh(self.layer(x)))


def test_no_books_are_kept_of_a_weight_that_is_used_twice():
    books, loss, trainable, records = run(Doubled(Linear(5, 5, key=KEY)), (5,))
    assert books.layers == {}
    for number, record in enumerate(records):
        wanted = jax.tree.leaves(jax.grad(loss)(trainable, record))
        for leaf, gradient in enumerate(wanted):
            np.testing.assert_allclose(books.gradients[leaf].values[number], gradient, rtol=1e-4, atol=1e-5)


class Volumes(eqx.Module):
    """A convolution that is tagged, one whose weight is used twice, and one that halves the sides."""

    first: Convolution
    twice: Convolution
    last: Convolution

    def __init__(self):
        self.first = Convolution(2, 3, dimensions=3, key=KEY, kind="standardised")
        self.twice = Convolution(3, 3, dimensions=3, key=KEY)
        self.last = Convolution(3, 2, dimensions=3, key=KEY, stride=2)

    def __call__(self, views):
        def of_one(x):
            return self.last(self.twice(jnp.tanh(self.twice(self.first(x)))))

        return jax.vmap(of_one)(views)


def convolutions(model, shape, count):
    """The convolutions of volumes or images in a pass over some records, with the shapes that they work on."""
    _, loss, trainable, records = run(model, shape)
    program = jax.jit(lambda trainable, records: bookkeeping_pass(loss, trainable, records))
    lines = program.lower(trainable, records[:count]).as_text().splitlines()
    return sorted(re.sub("%[a-z0-9_#]+", "", line) for line in lines if "stablehlo.convolution" in line)


def test_on_a_gpu_volumes_are_convolved_record_by_record_with_the_same_results(monkeypatch):
    # A convolution of several may round a record by its place there.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    shape = (2, 4, 5, 4, 2)
    _, loss, trainable, records = run(Volumes(), shape)
    books = jax.jit(lambda trainable, records: bookkeeping_pass(loss, trainable, records))(trainable, records)
    assert len(books.layers) == 2
    found = instantiate(books)
    for number, record in enumerate(records):
        wanted = jax.tree.leaves(jax.grad(loss)(trainable, record))
        for leaf, gradient in enumerate(wanted):
            np.testing.assert_allclose(found[leaf][number], gradient, rtol=1e-4, atol=1e-4)
    assert convolutions(Volumes(), shape, 2) == convolutions(Volumes(), shape, 3) != []
    images = Convolution(2, 3, dimensions=2, key=KEY)
    assert convolutions(images, (5, 4, 2), 2) != convolutions(images, (5, 4, 2), 3)
