"""Equinox' own layers, announced: same values, and norms and sums of each record's gradients as a plain loop has them.

What cannot be proven to be one product of one weight falls back: a norm that is too small would break privacy.
"""

import math
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.dpsgd import ghost_norms
from dpmed.dpsgd.bookkeeping import bookkeeping_pass, tagged_leaves
from dpmed.dpsgd.float64 import float64
from dpmed.dpsgd.ghost_norms import measure, settle
from dpmed.models.equinox_layers import announced, small_leaves

KEYS = list(jax.random.split(jax.random.key(0), 6))
RECORDS = 3
FACTORS = [0.5, 2.0, 1.0]
nn = eqx.nn


class Net(eqx.Module):
    """Layers and what is done with them."""

    layers: list
    forward: object = eqx.field(static=True)

    def __call__(self, x):
        return self.forward(self.layers, x)


class Own(nn.Linear):
    """A class of the user's own: a linear layer in name only."""

    def __call__(self, x, *, key=None):
        return jnp.tanh(self.weight) @ x


def conv(dimensions, channels_in, channels_out, kernel, **arguments):
    return nn.Conv(dimensions, channels_in, channels_out, kernel, key=KEYS[0], **arguments)


def linear(inputs, outputs, place=0, **arguments):
    return nn.Linear(inputs, outputs, key=KEYS[place], **arguments)


def one(layer, shape):
    return [layer], lambda layers, x: layers[0](x), shape


def attention(layers, x):
    tokens = jax.vmap(layers[0])(x)
    return layers[1](tokens, tokens, tokens)


def looked_up(layers, x):
    numbers = jnp.round(jnp.abs(x) * 5).astype(jnp.int32) % 4
    return jax.vmap(layers[1])(jax.vmap(layers[0])(numbers))


def mixed(layers, x):
    """An image's convolution, norm, tokens, attention and head."""
    y = jax.nn.gelu(layers[1](layers[0](x)))
    tokens = jax.vmap(layers[2])(jax.vmap(layers[3])(y.reshape(y.shape[0], -1).T))
    return layers[5](jnp.mean(layers[4](tokens, tokens, tokens), axis=0))


# name: layers (made when they are tested: each compiles), forward, shape of a record, how many weights are announced
FAST = {
    "linear": lambda: (*one(linear(5, 4), (5,)), 1),
    "linear without bias": lambda: (*one(linear(5, 4, use_bias=False), (5,)), 1),
    "linear to a scalar": lambda: (*one(linear(5, "scalar"), (5,)), 1),
    "tokens": lambda: ([linear(3, 4)], lambda layers, x: jax.vmap(layers[0])(x), (6, 3), 1),
    "tokens of tokens": lambda: (
        [linear(3, 4)],
        lambda layers, x: jax.vmap(jax.vmap(layers[0]), 1, 1)(x),
        (2, 4, 3),
        1,
    ),
    "attention": lambda: ([linear(3, 4), nn.MultiheadAttention(2, 4, key=KEYS[1])], attention, (5, 3), 5),
    "embedding": lambda: ([nn.Embedding(4, 3, key=KEYS[0]), linear(3, 2, 1)], looked_up, (6,), 2),
    "perceptron": lambda: (*one(nn.MLP(4, 3, 5, 2, key=KEYS[0]), (4,)), 3),
    "convolution 1D": lambda: (*one(conv(1, 2, 3, 3, padding=1), (2, 7)), 1),
    "convolution 2D": lambda: (*one(conv(2, 2, 3, 3, padding=1), (2, 5, 4)), 1),
    "convolution 3D": lambda: (*one(conv(3, 2, 3, 3, padding=1, stride=2), (2, 4, 3, 5)), 1),
    "no padding, stride": lambda: (*one(conv(2, 2, 3, (3, 2), stride=(2, 1)), (2, 7, 4)), 1),
    "padding on one side": lambda: (*one(conv(2, 2, 3, 2, padding=((1, 0), (2, 1))), (2, 5, 4)), 1),
    "dilation": lambda: (*one(conv(2, 2, 3, 3, padding=2, dilation=2), (2, 6, 5)), 1),
    "groups": lambda: (*one(conv(2, 4, 6, 3, padding=1, groups=2, use_bias=False), (4, 5, 4)), 1),
    "depthwise": lambda: (*one(conv(2, 4, 8, 3, groups=4, stride=2, dilation=2), (4, 7, 6)), 1),
    "same": lambda: (*one(conv(2, 2, 3, 4, padding="SAME", stride=2), (2, 5, 6)), 1),
    "reflected": lambda: (*one(conv(2, 2, 3, 3, padding=1, padding_mode="reflect"), (2, 5, 4)), 1),
    "around": lambda: (*one(conv(2, 2, 3, 3, padding="same", padding_mode="circular"), (2, 5, 4)), 1),
    "mixed": lambda: (
        [
            conv(2, 1, 4, 3, padding=1, stride=2),
            nn.GroupNorm(2, 4),
            nn.LayerNorm(4),
            linear(4, 4, 1),
            nn.MultiheadAttention(2, 4, use_query_bias=True, key=KEYS[2]),
            linear(4, 3, 3),
        ],
        mixed,
        (1, 6, 6),
        7,
    ),
}


def stacked():
    return eqx.filter_vmap(lambda key: nn.Linear(4, 4, key=key))(jnp.stack(KEYS[:3]))


def scanned(layers, x):
    # The list's first leaf is an array only: the scan slices it.
    arrays, static = eqx.partition(layers[0], eqx.is_array)
    return jax.lax.scan(lambda y, part: (jnp.tanh(eqx.combine(part, static)(y)), None), x, arrays)[0]


def slope(layers, x):
    """The layer differentiated by its input, along a direction, within the network."""
    value, along = jax.jvp(lambda y: jnp.tanh(layers[0](y)), (x,), (jnp.cos(x),))
    return value + along


def pulled_back(layers, x):
    return jax.grad(lambda y: jnp.sum(jnp.sin(layers[0](y))))(x)


def adapted(layers, x):
    """One step of descent on the weights themselves before they are used (as in meta-learning)."""
    inner = jax.grad(lambda layer: jnp.sum(jnp.sin(layer(x))))(layers[0])
    return jax.tree.map(lambda a, b: a - jnp.float32(0.1) * b, layers[0], inner)(x)


def held(layers, x):
    return jax.lax.stop_gradient(layers[0])(x) + layers[1](jax.lax.stop_gradient(x))


SLOW = {
    "used twice": lambda: ([linear(4, 4)], lambda layers, x: layers[0](jnp.tanh(layers[0](x))), (4,), 0),
    "used twice under vmap": lambda: (
        [linear(3, 3)],
        lambda layers, x: jax.vmap(layers[0])(jnp.tanh(jax.vmap(layers[0])(x))),
        (5, 3),
        0,
    ),
    "weight also used by itself": lambda: (
        [linear(4, 4)],
        lambda layers, x: layers[0](x) + jnp.sum(layers[0].weight * layers[0].weight),
        (4,),
        0,
    ),
    "one of many layers": lambda: (
        [stacked()],
        lambda layers, x: eqx.filter_vmap(lambda layer, y: layer(y))(layers[0], x),
        (3, 4),
        0,
    ),
    "many layers of one input": lambda: (
        [stacked()],
        lambda layers, x: eqx.filter_vmap(lambda layer, y: layer(y), in_axes=(eqx.if_array(0), None))(layers[0], x),
        (4,),
        0,
    ),
    "scanned layers": lambda: ([stacked()], scanned, (4,), 0),
    "within a checkpoint": lambda: (
        [linear(4, 4)],
        lambda layers, x: jax.checkpoint(lambda y: layers[0](2 * y))(x),
        (4,),
        0,
    ),
    "within a jit": lambda: ([linear(4, 4)], lambda layers, x: eqx.filter_jit(layers[0])(x), (4,), 0),
    "in a branch": lambda: (
        [linear(4, 4)],
        lambda layers, x: jax.lax.cond(x[0] > 0, lambda y: layers[0](-y), lambda y: 2 * y, x),
        (4,),
        0,
    ),
    "differentiated forwards": lambda: ([linear(4, 4)], slope, (4,), 0),
    "differentiated backwards": lambda: ([linear(4, 4)], pulled_back, (4,), 0),
    "adapted": lambda: ([linear(4, 3)], adapted, (4,), 0),
    "one of two held": lambda: ([linear(4, 4), linear(4, 4, 1)], held, (4,), 1),
    "normalised weight": lambda: (*one(nn.WeightNorm(linear(4, 3)), (4,)), 0),
    "of a class of one's own": lambda: (*one(Own(4, 3, key=KEYS[0]), (4,)), 0),
    "of a scalar": lambda: ([linear("scalar", 3)], lambda layers, x: layers[0](x[0]), (2,), 0),
    "a matrix for a vector": lambda: ([linear(4, 4, use_bias=False)], lambda layers, x: layers[0](x), (4, 3), 0),
    "a weight put in by hand": lambda: (
        *one(eqx.tree_at(lambda layer: layer.weight, linear(4, 3, use_bias=False), jnp.ones((2, 3, 4))), (4,)),
        0,
    ),
    "cropped": lambda: (*one(conv(2, 2, 3, 3, padding=-1), (2, 7, 6)), 0),
    "transposed": lambda: (*one(nn.ConvTranspose2d(2, 3, 2, stride=2, key=KEYS[0]), (2, 3, 3)), 0),
    "recurrent": lambda: (
        [nn.GRUCell(3, 4, key=KEYS[0])],
        lambda layers, x: jax.lax.scan(lambda h, y: (layers[0](y, h), None), jnp.zeros(4), x)[0],
        (5, 3),
        0,
    ),
}
CASES = FAST | SLOW


def problem(name, *, views):
    layers, forward, shape, expected = CASES[name]()
    trainable, static = eqx.partition(Net(layers, forward), eqx.is_inexact_array)

    def loss(trainable, record, tag=True):
        model = eqx.combine(trainable, static)
        outputs = jax.vmap(announced(model) if tag else model)(record["x"])
        return record["weight"] * jnp.sum(jnp.square(jnp.sin(outputs)))

    random = np.random.default_rng(len(name))
    records = {
        "x": jnp.asarray(random.normal(size=(RECORDS, views, *shape)), jnp.float32),
        "weight": jnp.asarray([1.0, -0.5, 3.0], jnp.float32),
    }
    return loss, trainable, records, expected


@pytest.mark.parametrize("name", list(CASES))
def test_norms_and_sums_are_those_of_a_loop_over_the_users_own_module(name, monkeypatch):
    loss, trainable, records, expected = problem(name, views=1 + len(name) % 2)

    @jax.jit
    def of_books(trainable, records):
        books = bookkeeping_pass(loss, trainable, records)
        found = []
        # Every gradient instantiated, then a ghost norm wherever there is one.
        for price in (0, 10**9) if books.layers else (0,):
            monkeypatch.setattr(ghost_norms, "_PRICE_OF_MEMORY", price)
            measured = measure(settle(books))
            with float64():
                factors = [jnp.asarray(FACTORS)] * len(measured.squares)
            found.append((measured.squares, measured.weighted_sum(factors)))
        one_by_one = jax.vmap(jax.value_and_grad(partial(loss, tag=False)), in_axes=(None, 0))(trainable, records)
        return books.losses, found, jnp.zeros(len(books.layers)), one_by_one

    losses, found, layers, (wanted_losses, gradients) = of_books(trainable, records)
    assert len(layers) == expected
    np.testing.assert_allclose(losses, wanted_losses, rtol=2e-5)
    for squares, sums in found:
        for square, total, leaf in zip(squares, sums, jax.tree.leaves(gradients), strict=True):
            gradient = np.asarray(leaf, np.float64)
            np.testing.assert_allclose(square, np.square(gradient).reshape(RECORDS, -1).sum(1), rtol=2e-4, atol=1e-9)
            weighted = np.tensordot(FACTORS, gradient, 1)
            np.testing.assert_allclose(total, weighted, rtol=2e-4, atol=2e-4 * np.abs(gradient).max() + 1e-9)


@pytest.mark.parametrize("index", [0, 3, -1, -4, 4, 9, -7])
def test_an_embedding_looks_up_what_equinox_does_also_beyond_its_ends(index):
    layer = nn.Embedding(4, 3, key=KEYS[0])
    place = jnp.asarray(index)
    np.testing.assert_array_equal(announced(layer)(place), layer(place))


@pytest.mark.parametrize(
    "pool, shape, taken",
    [
        (nn.MaxPool1d(2, 2), (3, 7), True),
        (nn.MaxPool2d(2, 2), (3, 6, 5), True),
        (nn.MaxPool2d((3, 2), (3, 2)), (2, 8, 6), True),
        (nn.MaxPool3d(2, 2), (1, 4, 5, 6), True),
        (nn.MaxPool2d(3, 2, padding=1), (3, 6, 5), False),
        (nn.MaxPool2d(2, 2, use_ceil=True), (3, 5, 5), False),
        (nn.MaxPool2d(2, 1), (3, 5, 5), False),
    ],
)
def test_pools_have_the_values_and_gradients_of_equinox_also_of_equal_numbers_and_of_none(pool, shape, taken):
    # Few different numbers, so that most windows hold their maximum twice.
    x = jnp.asarray(np.random.default_rng(1).integers(-1, 2, shape), jnp.float32).at[(0,) * len(shape)].set(jnp.nan)
    out = jax.eval_shape(pool, x).shape
    along = np.cos(np.arange(math.prod(out), dtype=np.float32)).reshape(out)
    finite = jnp.where(jnp.isnan(x), 0.0, x)

    @jax.jit
    def both(x, finite):
        return [(pool(x), jax.vjp(pool, finite)[1](along)[0]) for pool in (announced(pool), pool)]

    (ours, back), (theirs, back_of_theirs) = both(x, finite)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(back, back_of_theirs)
    program = str(jax.make_jaxpr(announced(pool))(x))
    assert ("reduce_window" not in program) == taken


def test_the_module_itself_is_not_changed_and_layers_without_weights_are_left():
    layer = linear(3, 2)
    found = announced([layer, eqx.filter(layer, lambda _: False)])
    assert type(layer) is nn.Linear and type(found[1]) is nn.Linear
    assert isinstance(found[0], nn.Linear) and found[0].weight is layer.weight


def test_small_leaves_are_biases_and_norms_by_their_number_among_all_arrays():
    module = [jnp.ones(3), linear(3, 2), jnp.tanh, nn.LayerNorm(2), nn.Embedding(4, 3, key=KEYS[0]), conv(1, 1, 2, 3)]
    leaves = jax.tree.leaves(eqx.filter(module, eqx.is_inexact_array))
    assert [leaves[number].shape for number in sorted(small_leaves(module))] == [(2,), (2,), (2,), (2, 1)]


def test_tagged_leaves_are_found_of_shapes_alone():
    loss, trainable, records, _ = problem("mixed", views=1)
    found = tagged_leaves(loss, trainable, jax.tree.map(lambda leaf: leaf[0], records))
    kept = []
    jax.eval_shape(lambda *given: kept.extend(bookkeeping_pass(loss, *given).layers), trainable, records)
    assert found == set(kept) and len(kept) == 7
