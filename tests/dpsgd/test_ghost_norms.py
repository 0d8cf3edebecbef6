"""Norms and weighted sums against one gradient at a time, for every kind of layer and both ways of computing them."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.dpsgd import ghost_norms
from dpmed.dpsgd.bookkeeping import Bookkeeping, Layer, bookkeeping_pass
from dpmed.dpsgd.clipped_sum import rounding_margin, sum_clipped
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.dpsgd.float64 import float64
from dpmed.dpsgd.ghost_norms import GradientNorms, is_ghost_cheaper, measure, settle
from dpmed.layer_tags import RecordGradients
from dpmed.models.convolution import Convolution, ConvolutionProduct, UpConvolution
from dpmed.models.equinox_layers import ChannelsFirstFilters, LookupProduct
from dpmed.models.kernels import winograd
from dpmed.models.layers import GroupNorm, Linear, LinearProduct

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


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_weighted_sums_of_rows_are_exact_in_float64_however_they_are_added(backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(35, 7)).astype(np.float32)
    rows[3], rows[4] = np.nan, np.inf
    usable = np.isfinite(rows).all(axis=1)
    excess = rng.normal(size=(35, 1)).astype(np.float32)
    with float64():
        weights = jnp.asarray(rng.random(35))
        values = RecordGradients(jnp.asarray(rows), jnp.asarray(excess))
        found = jax.jit(ghost_norms._weighted_sum_of_rows)(values, weights, jnp.asarray(usable))
    wanted = np.longdouble(0)
    for row, less, weight in zip(rows[usable], excess[usable], np.asarray(weights)[usable], strict=True):
        wanted = wanted + (row.astype(np.longdouble) - less) * weight
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wanted.astype(np.float64), rtol=0, atol=1e-13)


def test_leaves_summed_together_have_the_bits_of_each_alone_and_only_those_with_the_same_factors_are():
    rng = np.random.default_rng(0)
    shapes = [(4,), (2, 3), (), (ghost_norms._SHORT_ROW + 1,), (5,)]
    leaves = [jnp.asarray(rng.normal(size=(9, *shape)), jnp.float32) for shape in shapes]
    books = Bookkeeping(jnp.zeros(9), {}, dict(enumerate(map(RecordGradients, leaves))))
    with float64():
        one, other = (jnp.asarray(rng.random(9)) for _ in range(2))
    factors = [one, one, one, one, other]

    def sums(factors):
        measured = measure(books)
        assert [list(group) for group in measured._summed_together(factors)] == [[0, 1, 2], [3], [4]]
        return measured.weighted_sum(factors)

    for shape, leaf, factor, found in zip(shapes, leaves, factors, sums(factors), strict=True):
        with float64():
            alone = ghost_norms._weighted_sum_of_rows(RecordGradients(leaf), factor, jnp.ones(9, bool))
        assert found.shape == shape
        np.testing.assert_array_equal(found, alone)


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


def _layer(
    kind, seed, *, views=2, side=4, inputs=5, outputs=6, offset=0.0, dimensions=2, scales=(1.0, 1.0, 1.0), **others
):
    """A layer's inputs and output gradients; with an `offset`, columns nearly vanish when they are centred."""
    layer = Convolution(inputs, outputs, dimensions=dimensions, key=KEY, kind=kind, **others)
    rng = np.random.default_rng(seed)
    space = [side] * dimensions
    x = rng.normal(size=(RECORDS, views, *space, inputs)) + offset
    out = [-(-side // layer.stride)] * dimensions
    gradient = rng.normal(size=(RECORDS, views, *out, outputs))
    product = ConvolutionProduct(layer.weight.shape[:-2], layer.stride, kind)
    scales = np.reshape(scales, (RECORDS, *[1] * (x.ndim - 1)))
    x, gradient = x * scales, gradient / scales
    return Layer(product, layer.weight, jnp.asarray(x, jnp.float32), jnp.asarray(gradient, jnp.float32))


def _by_long_loop(layer):
    """Each record's gradient, by NumPy in extended precision, from products at each place of the filter."""
    x, gradient = (np.asarray(one, np.longdouble) for one in (layer.x, layer.gradient))
    kernel, stride = layer.product.kernel, layer.product.stride
    padded = np.pad(x, [(0, 0), (0, 0), *((side // 2,) * 2 for side in kernel), (0, 0)])
    found = np.zeros((len(x), *layer.weight.shape), np.longdouble)
    for place in np.ndindex(*kernel):
        window = padded[:, :, *(slice(at, at + stride * (side - 1) + 1, stride)
                                for at, side in zip(place, gradient.shape[2:-1], strict=True))]  # fmt: skip
        found[:, *place] = np.einsum("npc,npk->nck", window.reshape(len(x), -1, x.shape[-1]),
                                     gradient.reshape(len(x), -1, gradient.shape[-1]))  # fmt: skip
    if layer.product.kind == "centred":
        found -= found.mean(axis=tuple(range(1, found.ndim - 1)), keepdims=True)
    return found


CASES = {
    "plain": {"kind": "plain"},
    "centred": {"kind": "centred"},
    "centred, nearly vanishing": {"kind": "centred", "offset": 3000.0},
    "centred, stride 2": {"kind": "centred", "stride": 2, "offset": 3000.0},
    "centred, one channel, 1D": {"kind": "centred", "dimensions": 1, "inputs": 1, "side": 7},
    "centred, 3D": {"kind": "centred", "dimensions": 3, "side": 3},
    "records of different size": {"kind": "centred", "scales": [1e-18, 1.0, 1e15]},
    "wide: Winograd's way": {"kind": "centred", "inputs": 64, "outputs": 64, "side": 9, "views": 1},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_ghost_norms_and_sums_err_by_no_more_than_they_say(case, seed):
    layer = _layer(**CASES[case], seed=seed)
    books = Bookkeeping(jnp.zeros(RECORDS), {0: layer}, {})
    factors = np.array([0.7, 1e-9, 123.0])

    errors = []

    def run(books):
        measured = measure(books)
        errors.extend([measured.norm_error, measured.summation_error])
        with float64():
            return measured.squares[0], measured.weighted_sum([jnp.asarray(factors)])[0]

    found, total = jax.jit(run)(books)
    norm_error, summation_error = errors
    exact = _by_long_loop(layer)
    square = np.square(exact).reshape(RECORDS, -1).sum(axis=1)
    places = math.prod(layer.product.kernel)
    lengths = [np.square(np.asarray(one, np.longdouble)).reshape(RECORDS, -1).sum(axis=1)
               for one in (layer.x, layer.gradient)]  # fmt: skip
    floor = np.maximum(square, ghost_norms.LEAST_SHARE**2 * places * lengths[0] * lengths[1])
    assert np.all(np.abs(np.asarray(found, np.longdouble) - floor) <= 2 * norm_error * floor)
    wanted = np.tensordot(factors.astype(np.longdouble), exact, axes=1)
    error = np.linalg.norm((np.asarray(total, np.longdouble) - wanted).astype(float).ravel())
    assert error <= summation_error * float(np.sum(np.sqrt(floor) * factors))
    # What float32 would err by is far more.
    assert max(norm_error, summation_error) < 1e-7


def test_wide_layers_are_summed_in_winograds_way(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    layer = _layer(**CASES["wide: Winograd's way"], seed=0)
    together = RECORDS, *layer.x.shape[2:]
    assert winograd.sums_pay(together, 64)
    assert layer.product.rounding((1, *together), 64) >= winograd.rounding(together) / 3


@pytest.mark.parametrize(("backend", "largest"), [("cpu", 6e-3), ("gpu", 1e-2)])
@pytest.mark.parametrize("records", [256, 1024])
def test_large_batches_and_data_sets_keep_a_small_margin(records, backend, largest, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    layer = _layer(kind="centred", seed=0, views=1, side=8, inputs=64, outputs=64)
    shapes = [jnp.zeros((records, *one.shape[1:])) for one in (layer.x, layer.gradient)]
    large = Layer(layer.product, layer.weight, *shapes)
    norms = GradientNorms(jnp.zeros(records), [], jnp.ones(records, bool), [None], {0: large})
    margin = rounding_margin(2**20, norm_error=norms.norm_error, summation_error=norms.summation_error)
    assert margin < largest


def test_rounding_counts_every_position_that_is_added():
    products = {
        LinearProduct(): ((1, 6, 5, 7), 30),
        LookupProduct(): ((1, 6, 7), 6),
        ConvolutionProduct((3,), 2, "plain"): ((1, 6, 7, 2), 24),
        ConvolutionProduct((3, 3), 1, "centred"): ((1, 6, 8, 8, 64), 384),
        ChannelsFirstFilters((3, 3), (2, 1), ((1, 1), (0, 0)), (1, 2), 1): ((1, 6, 5, 7, 2), 54),
    }
    for product, (shape, positions) in products.items():
        assert product.rounding(shape, 64) >= positions


@pytest.mark.parametrize("dimensions", [2, 3])
def test_norm_and_sum_are_of_the_same_float64_numbers(dimensions, monkeypatch):
    # In float32, or recomputed, mean and values would be rounded apart, and a record would be too long by some 1e-9.
    monkeypatch.setattr(ghost_norms, "is_ghost_cheaper", lambda layer: False)
    largest = 0.0
    for seed in range(8):
        layer = _layer(kind="centred", seed=seed, dimensions=dimensions, inputs=3, outputs=8, views=1, offset=2.0)
        for record in range(RECORDS):
            one = Layer(layer.product, layer.weight, layer.x[record][None], layer.gradient[record][None])
            books = Bookkeeping(jnp.zeros(1), {0: one}, {})
            found = jax.jit(lambda books: sum_clipped(books, jnp.ones(1, bool), clipping=FlatClipping(0.01),
                                                      most_records=1).gradients[0])(books)  # fmt: skip
            length = float(np.sqrt(np.square(np.asarray(found, np.longdouble)).sum()))
            largest = max(largest, abs(length / 0.01 - 1))
    assert largest < 3e-11
