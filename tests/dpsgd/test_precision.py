"""bfloat16 products: what is rounded, what is not, and that the clipped sum stays within its bound."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpmed.dpsgd import ghost_norms
from dpmed.dpsgd.bookkeeping import bookkeeping_pass
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.dpsgd.float64 import float64
from dpmed.dpsgd.ghost_norms import measure, settle
from dpmed.dpsgd.noise import seeded_key
from dpmed.dpsgd.step import PrivateStep, StepState
from dpmed.layer_tags import computing_in
from dpmed.models.convolution import Convolution, UpConvolution
from dpmed.models.layers import GroupNorm, Linear

KEY = jax.random.key(0)
RECORDS = 3


class Network(eqx.Module):
    """All kinds of layers in a row, including a weight that is used twice."""

    layers: list
    head: Linear

    def __init__(self, dimensions, kind):
        self.layers = [
            Convolution(2, 4, dimensions=dimensions, key=KEY, kind=kind),
            GroupNorm(4, 2),
            Convolution(4, 4, dimensions=dimensions, key=KEY, kind=kind, stride=2, bias=True),
            UpConvolution(4, 3, dimensions=dimensions, key=KEY),
        ]
        self.head = Linear(3, 3, key=KEY)

    def __call__(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        pooled = jnp.mean(x, axis=tuple(range(x.ndim - 1)))
        return self.head(jnp.tanh(self.head(pooled)))


def problem(dimensions, kind, *, precision="bfloat16", seed=0):
    trainable, static = eqx.partition(Network(dimensions, kind), eqx.is_inexact_array)

    def loss(trainable, record, scale):
        with computing_in(precision):
            outputs = eqx.combine(trainable, static)(record["x"])
        return scale * jnp.sum(jnp.square(outputs - record["y"]))

    rng = np.random.default_rng(seed)
    shape = (RECORDS, *[6, 4, 4][:dimensions], 2)
    records = {"x": rng.normal(size=shape), "y": rng.normal(size=(RECORDS, 3))}
    return loss, trainable, jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), records)


def flat(tree):
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])


CASES = [(2, "plain"), (2, "centred"), (2, "standardised"), (3, "plain")]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Linear(7, 4, key=KEY), (7,)),
        (Convolution(2, 3, dimensions=2, key=KEY, stride=2), (5, 4, 2)),
        (Convolution(2, 3, dimensions=2, key=KEY, kind="standardised"), (5, 4, 2)),
        (Convolution(2, 3, dimensions=3, key=KEY, kind="centred"), (3, 4, 5, 2)),
    ],
)
def test_a_layers_gradient_is_the_float32_one_of_its_rounded_input(layer, shape):
    x, target = (jax.random.normal(jax.random.key(number), shape) for number in (1, 2))
    target = jnp.resize(target, layer(x).shape)

    def loss(layer, x, precision):
        with computing_in(precision):
            return jnp.vdot(layer(x), target)

    books = bookkeeping_pass(lambda layer, x: loss(layer, x, "bfloat16"), layer, x[None])
    # The output's gradient is the target, so the weight's follows from the rounded input alone, in float32.
    rounded = jnp.asarray(np.asarray(x).astype(jnp.bfloat16).astype(np.float32))
    expected = jax.grad(lambda layer: loss(layer, rounded, "float32"))(layer)
    found = ghost_norms.instantiate(books)
    for ours, theirs in zip(found, jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-5, atol=1e-5)
    unrounded = jax.grad(lambda layer: loss(layer, x, "float32"))(layer)
    assert np.abs(flat(unrounded) - flat(expected)).max() > 1e-4


@pytest.mark.parametrize("price", [0, 10**9], ids=["instantiated", "ghost"])
@pytest.mark.parametrize(("dimensions", "kind"), CASES)
def test_norms_and_sums_are_those_of_one_set_of_float32_gradients(dimensions, kind, price, monkeypatch):
    monkeypatch.setattr(ghost_norms, "_PRICE_OF_MEMORY", price)
    loss, trainable, records = problem(dimensions, kind)
    with float64():
        factors = jnp.asarray([0.5, 0.0, 2.0], jnp.float64)

    @jax.jit
    def run(trainable, records):
        books = bookkeeping_pass(loss, trainable, records, jnp.float32(1.0))
        measured = measure(settle(books))
        return (
            measured.squares,
            measured.weighted_sum([factors] * len(measured.squares)),
            ghost_norms.instantiate(books),
        )

    squares, sums, gradients = run(trainable, records)
    for square, gradient in zip(squares, gradients, strict=True):
        assert gradient.dtype == jnp.float32
        expected = np.square(np.asarray(gradient, np.float64)).reshape(RECORDS, -1).sum(axis=1)
        np.testing.assert_allclose(square, expected, rtol=1e-4, atol=1e-9)
    for total, gradient in zip(sums, gradients, strict=True):
        assert total.dtype == jnp.float64
        expected = np.tensordot(np.asarray(factors, np.float64), np.asarray(gradient, np.float64), axes=1)
        np.testing.assert_allclose(total, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("dimensions", "kind"), CASES)
def test_gradients_are_about_those_of_float32_and_not_the_same(dimensions, kind):
    found = {}
    for precision in ("bfloat16", "float32"):
        loss, trainable, records = problem(dimensions, kind, precision=precision)
        gradients = jax.jit(
            lambda *of, loss=loss: ghost_norms.instantiate(bookkeeping_pass(loss, *of, jnp.float32(1.0)))
        )
        found[precision] = flat(gradients(trainable, records))
    apart = np.linalg.norm(found["bfloat16"] - found["float32"]) / np.linalg.norm(found["float32"])
    # bfloat16 keeps 8 bits: several roundings of 2^-9 in a row.
    assert 1e-4 < apart < 0.05


def test_products_of_the_forward_and_of_the_backward_pass_are_bfloat16():
    loss, trainable, records = problem(2, "plain")
    one = jax.tree.map(lambda leaf: leaf[0], records)
    inputs = jax.make_jaxpr(jax.grad(lambda x: loss(trainable, {**one, "x": x}, jnp.float32(1.0))))(one["x"])
    products = [line for line in str(inputs).splitlines() if "conv_general_dilated" in line or "dot_general" in line]
    # Equal products are printed once: two convolutions, the blocks (also a convolution) and the head; forward and
    # backward.
    assert len(products) >= 8 and all(":bf16[" in line for line in products), products


@pytest.mark.parametrize("price", [0, 10**9], ids=["instantiated", "ghost"])
@pytest.mark.parametrize(("dimensions", "kind"), [(2, "standardised"), (3, "plain")])
def test_no_single_record_moves_the_sum_by_more_than_the_clipping_norm(dimensions, kind, price, monkeypatch):
    monkeypatch.setattr(ghost_norms, "_PRICE_OF_MEMORY", price)
    loss, trainable, _ = problem(dimensions, kind)
    clipping = FlatClipping(0.7)
    step = PrivateStep(
        lambda leaves, rest, record: loss(leaves, record, record["scale"]),
        clipping=clipping,
        noise_multiplier=1.0,
        expected_batch_size=1,
        most_records=RECORDS,
        optimizer=optax.sgd(1.0),
        key=seeded_key(0),
    )
    state = StepState(trainable=trainable, rest=None, optimizer=optax.sgd(1.0).init(trainable))
    for exponent in range(-12, 13):
        _, _, records = problem(dimensions, kind, seed=exponent + 12)
        records["scale"] = jnp.full(RECORDS, 10.0**exponent, jnp.float32)
        _, total = step.accumulate(state, step.begin(state), records, np.array([True, False, False]))
        assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(total.gradients))
        length = np.linalg.norm(flat(total.gradients))
        assert length <= clipping.sensitivity(None)
        assert length > 0.69 or not 3 < exponent
    moved = step.update(state, total, draw=0)
    assert {leaf.dtype for leaf in jax.tree.leaves(moved.trainable)} == {jnp.dtype("float32")}
