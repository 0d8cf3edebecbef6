"""The clipped sum against a loop and optax, and the sensitivity of the computed sum, on which all privacy rests.

Differences of two sums are computed in exact rational arithmetic, so the test's own rounding cannot hide theirs.
"""

from fractions import Fraction
from functools import cache
from math import sqrt

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.dpsgd.bookkeeping import bookkeeping_pass
from dpmed.dpsgd.clipped_sum import OtherShapes, clip_and_sum, rounding_margin
from dpmed.dpsgd.clipping import AdaptiveClipping, AutomaticClipping, FlatClipping, PerLayerClipping
from dpmed.dpsgd.ghost_norms import NO_ERRORS, measure, settle
from dpmed.dpsgd.noise import seeded_key
from dpmed.dpsgd.step import PrivateStep, StepState
from dpmed.models.layers import Linear
from tests.oracles import clipped_sum_by_loop, global_norm


def random_gradients(seed, batch, scale=1.0):
    rng = np.random.default_rng(seed)
    scales = scale * 10.0 ** rng.uniform(-2, 2, size=batch)
    leaves = [rng.normal(size=(batch, 3, 2)), rng.normal(size=(batch, 5)), rng.normal(size=(batch,))]
    return [(leaf * scales.reshape(-1, *[1] * (leaf.ndim - 1))).astype(np.float32) for leaf in leaves]


def length_of_difference(a, b):
    """‖a − b‖ of two sums, exact except for its root."""
    pairs = [
        pair
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        for pair in zip(np.ravel(x).tolist(), np.ravel(y).tolist(), strict=True)
    ]
    return sqrt(sum((Fraction(x) - Fraction(y)) ** 2 for x, y in pairs))


@cache
def compiled(norm):
    return jax.jit(lambda gradients, mask: clip_and_sum(gradients, mask, clipping=FlatClipping(norm)))


def clip(gradients, mask, norm):
    return compiled(norm)([jnp.asarray(leaf) for leaf in gradients], jnp.asarray(mask))


@given(seed=st.integers(0, 10_000), batch=st.sampled_from([1, 7]), norm=st.sampled_from([1e-3, 0.3, 20.0, 1e3]))
@settings(max_examples=40, deadline=None)
def test_sum_equals_the_plain_loop(seed, batch, norm):
    gradients = random_gradients(seed, batch)
    mask = np.random.default_rng(seed).random(batch) < 0.7
    result = clip(gradients, mask, norm)
    expected = clipped_sum_by_loop(gradients, mask, norm)
    for found, wanted in zip(result.gradients, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9 * norm)


def test_sum_equals_that_of_optax():
    gradients = random_gradients(3, 16)
    found = clip(gradients, np.ones(16, bool), 0.8)
    wanted, clipped = optax.per_example_global_norm_clip([jnp.asarray(leaf) for leaf in gradients], 0.8)
    for ours, theirs in zip(found.gradients, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert int(found.clipped) == int(clipped)


@given(
    seed=st.integers(0, 10_000),
    batch=st.sampled_from([1, 2, 8]),
    place=st.integers(0, 7),
    exponent=st.floats(-18, 18),
    norm=st.sampled_from([1e-3, 0.5, 7.0]),
)
@settings(max_examples=60, deadline=None)
def test_removing_any_sample_moves_the_sum_by_at_most_the_clipping_norm(seed, batch, place, exponent, norm):
    gradients = random_gradients(seed, batch, scale=10.0**exponent)
    mask = np.ones(batch, bool)
    without = mask.copy()
    without[place % batch] = False
    whole, less = clip(gradients, mask, norm), clip(gradients, without, norm)
    assert length_of_difference(whole.gradients, less.gradients) <= norm


@pytest.mark.parametrize("size", [0.0, 1e-44, 1e-38, 1e-30, 1e-20, 1e-3, 1e18, 1e30, 3e38])
def test_a_single_gradient_never_exceeds_the_norm_however_tiny_or_huge(size):
    gradients = [np.full((1, 40), size, np.float32), np.full((1, 3, 3), -size, np.float32)]
    result = clip(gradients, np.ones(1, bool), 1.5)
    norm = global_norm([np.asarray(leaf) for leaf in result.gradients])
    assert np.isfinite(norm)
    assert norm <= 1.5
    if size * 7 > 1.5:
        assert norm >= 1.5 * (1 - 1e-9)
    assert int(result.rejected) == 0


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_counts_as_zero_and_is_counted(poison):
    gradients = random_gradients(1, 4)
    healthy = clip(gradients, np.array([True, False, True, True]), 1.0)
    gradients[1][1, 2] = poison
    result = clip(gradients, np.ones(4, bool), 1.0)
    for found, wanted in zip(result.gradients, healthy.gradients, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert int(result.rejected) == 1


def test_padding_has_exactly_no_effect_whatever_it_holds():
    gradients = random_gradients(2, 3)
    plain = clip(gradients, np.ones(3, bool), 1.0)
    for filler in (0.0, 1e30, np.nan):
        padded = [np.concatenate([leaf, np.full((5, *leaf.shape[1:]), filler, np.float32)]) for leaf in gradients]
        result = clip(padded, np.arange(8) < 3, 1.0)
        for found, wanted in zip(result.gradients, plain.gradients, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-6)
        assert int(result.rejected) == 0


def test_an_all_padding_microbatch_is_exactly_zero():
    result = clip(random_gradients(0, 4), np.zeros(4, bool), 1.0)
    assert all(not np.asarray(leaf).any() for leaf in result.gradients)


def test_the_sum_carries_its_sensitivity():
    assert float(clip(random_gradients(0, 2), np.ones(2, bool), 0.046).sensitivity) == 0.046


CLIP = 0.7
DIMENSIONS = 3


@cache
def dot_step(kind, most_records):
    """A step in which each record's gradient is the record itself."""
    clippings = {
        "flat": FlatClipping(CLIP),
        "per-layer": PerLayerClipping(CLIP),
        "automatic": AutomaticClipping(CLIP),
        "adaptive": AdaptiveClipping(
            clipping_norm=CLIP, quantile=0.5, rate=0.2, count_noise=3.0, expected_batch_size=8
        ),
    }
    optimizer = optax.with_extra_args_support(optax.sgd(1.0))
    clipping = clippings[kind]
    step = PrivateStep(
        lambda trainable, rest, record: jnp.dot(trainable["a"], record[:2]) + jnp.dot(trainable["b"], record[2:]),
        clipping=clipping,
        noise_multiplier=1.0,
        expected_batch_size=8,
        most_records=most_records,
        optimizer=optimizer,
        key=seeded_key(0),
    )
    weights = {"a": jnp.zeros(2, jnp.float32), "b": jnp.zeros(DIMENSIONS - 2, jnp.float32)}
    state = StepState(trainable=weights, rest=None, optimizer=optimizer.init(weights), clipping_norm=clipping.begin())
    return step, state


def total_of(step, state, gradients, microbatch):
    """The accumulated sum, with microbatches filled as by the loader."""
    total = step.begin(state)
    for first in range(0, len(gradients), microbatch):
        part = gradients[first : first + microbatch]
        padded = np.concatenate([part, np.zeros((microbatch - len(part), DIMENSIONS), np.float32)])
        state, total = step.accumulate(state, total, padded, np.arange(microbatch) < len(part))
    return total


@pytest.mark.parametrize("microbatch", [32, 1024])
@pytest.mark.parametrize("kind", ["flat", "automatic"])
def test_two_to_the_17_equal_gradients_move_the_sum_by_no_more_than_the_sensitivity(kind, microbatch):
    count = 2**17 if microbatch > 32 else 2**14
    step, state = dot_step(kind, count)
    gradients = np.tile(np.float32([0.3, -0.7, 0.9]), (count, 1))
    whole = total_of(step, state, gradients, microbatch)
    # With one record less, all others move up by one place.
    less = total_of(step, state, gradients[:-1], microbatch)
    moved = length_of_difference(whole.gradients, less.gradients)
    assert moved <= float(whole.sensitivity) == CLIP
    assert moved > 0.99 * CLIP
    assert int(whole.records) == count


@pytest.mark.parametrize(("largest", "least"), [(2**12, 2e-4), (2**14, 1e-3), (2**17, 1e-2)])
def test_the_same_gradients_summed_in_float32_move_by_more(largest, least):
    # The error that the test above must catch; which norms are affected depends on their last digits.
    excess = []
    for norm in np.linspace(0.5, 1.0, 60, dtype=np.float32):
        totals = []
        for count in (largest, largest - 1):
            clipped = np.full(count, norm, np.float32)
            parts = [clipped[first : first + 1024].sum(dtype=np.float32) for first in range(0, count, 1024)]
            totals.append(np.cumsum(parts, dtype=np.float32)[-1])
        excess.append((float(totals[0]) - float(totals[1])) / float(norm) - 1)
    assert max(excess) > least


@given(
    kind=st.sampled_from(["flat", "per-layer", "automatic", "adaptive"]),
    exponents=st.lists(st.integers(-40, 37), min_size=2, max_size=9),
    seed=st.integers(0, 2**16),
    place=st.integers(0, 8),
    microbatch=st.sampled_from([1, 4]),
)
@settings(max_examples=60, deadline=None)
def test_no_record_among_others_of_any_size_moves_the_steps_sum_by_more(kind, exponents, seed, place, microbatch):
    step, state = dot_step(kind, 9)
    directions = np.random.default_rng(seed).normal(size=(len(exponents), DIMENSIONS))
    gradients = (directions * 10.0 ** np.array(exponents)[:, None]).astype(np.float32)
    whole = total_of(step, state, gradients, microbatch)
    less = total_of(step, state, np.delete(gradients, place % len(gradients), axis=0), microbatch)
    assert length_of_difference(whole.gradients, less.gradients) <= float(whole.sensitivity)


@pytest.mark.parametrize("order", ["given", "shuffled"])
def test_the_sum_is_that_of_exact_arithmetic_within_its_margin(order):
    # Huge clipped gradients cancel in the sum; float32 would lose the small ones.
    rng = np.random.default_rng(3)
    signs = np.repeat([1.0, -1.0], 300)
    gradients = np.concatenate([signs[:, None] * [1.0, 1.0, 1.0], 1e-6 * rng.normal(size=(40, 3))]).astype(np.float32)
    if order == "shuffled":
        rng.shuffle(gradients)
    step, state = dot_step("flat", len(gradients))
    found = total_of(step, state, gradients, 64)
    norms = np.linalg.norm(gradients.astype(np.float64), axis=1)
    factors = np.minimum(1, CLIP / norms)
    wanted = [sum(Fraction(f) * Fraction(float(g)) for f, g in zip(factors, row, strict=True)) for row in gradients.T]
    values = [float(value) for leaf in jax.tree.leaves(found.gradients) for value in np.ravel(leaf)]
    np.testing.assert_allclose(values, [float(value) for value in wanted], atol=1e-12)
    assert np.abs(values).max() < 1e-3


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 33, 300])
def test_rows_of_any_number_are_summed_in_full(count):
    gradients = [np.random.default_rng(count).normal(size=(count, 4)).astype(np.float32)]
    found = clip(gradients, np.ones(count, bool), 1e3)
    np.testing.assert_allclose(found.gradients[0], gradients[0].astype(np.float64).sum(axis=0), rtol=1e-10)


def test_the_margin_grows_with_the_number_of_records_and_is_refused_where_float64_does_not_suffice():
    margins = [rounding_margin(count, norm_error=1e-9, summation_error=1e-11) for count in (1, 4096, 2**17)]
    assert margins[0] < margins[1] < margins[2] < 1e-5
    with pytest.raises(ValueError, match="most_records"):
        rounding_margin(2**27, norm_error=0.0, summation_error=0.0)


def test_one_record_less_leaves_the_room_for_rounding_as_it_is():
    # Otherwise every record's contribution would change when one is removed.
    kept, gone = (rounding_margin(count, norm_error=1e-9, summation_error=1e-11) for count in (1293, 1292))
    assert kept == gone > rounding_margin(1024, norm_error=1e-9, summation_error=1e-11)


# With 6 views, the layer's norm is a ghost norm with the largest error; with 40, its gradient is instantiated.
VIEWS = (1, 6, 40)


def viewed_problem():
    """A layer that sees several views of a record, and records of one real view, padded to the numbers of `VIEWS`."""
    trainable, static = eqx.partition(Linear(7, 4, key=jax.random.key(0)), eqx.is_inexact_array)

    def loss(trainable, rest, record):
        del rest
        outputs = jax.vmap(eqx.combine(trainable, static))(record["x"])
        return jnp.sum(jnp.square(outputs) * record["weights"][:, None])

    def padded(views):
        x = np.random.default_rng(1).normal(size=(2, 1, 7)).astype(np.float32)
        return {
            "x": jnp.asarray(np.concatenate([x, np.zeros((2, views - 1, 7), np.float32)], axis=1)),
            "weights": jnp.asarray(np.tile(np.float32(np.arange(views) < 1), (2, 1))),
        }

    def shapes(records):
        count = records["weights"].shape[0]
        return [
            {
                "x": jax.ShapeDtypeStruct((count, views, 7), np.float32),
                "weights": jax.ShapeDtypeStruct((count, views), np.float32),
            }
            for views in VIEWS
        ]

    return trainable, loss, padded, shapes


def viewed_step(loss, shapes):
    return PrivateStep(
        loss,
        clipping=FlatClipping(1e-3),
        noise_multiplier=1.0,
        expected_batch_size=8,
        most_records=8,
        optimizer=optax.with_extra_args_support(optax.sgd(1.0)),
        key=seeded_key(0),
        shapes=shapes,
    )


def lengths_in_each_shape(shapes):
    """The length of one record's share of the sum when it is padded to each number of views."""
    trainable, loss, padded, _ = viewed_problem()
    step, state = viewed_step(loss, shapes), StepState(trainable=trainable, rest=None, optimizer=None)
    found = []
    for views in VIEWS:
        _, total = step.accumulate(state, step.begin(state), padded(views), np.array([True, False]))
        leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(total.gradients)]
        found.append(float(np.linalg.norm(np.concatenate(leaves))))
    return found


def test_all_shapes_of_microbatches_have_the_same_margin_for_rounding():
    # Otherwise records of one shape would leave too little room for the errors of another one's sums.
    trainable, loss, padded, shapes = viewed_problem()
    own = []
    for views in VIEWS:
        measured = measure(
            settle(bookkeeping_pass(lambda leaves, one: loss(leaves, None, one), trainable, padded(views)))
        )
        own.append((measured.norm_error, measured.summation_error))
    assert own[1][0] > 10 * own[2][0]
    others = OtherShapes(
        lambda state, records: bookkeeping_pass(lambda leaves, one: loss(leaves, None, one), state, records), shapes
    )
    found = others.errors(trainable, padded(1))
    assert (found.norm, found.summation) == tuple(max(errors) for errors in zip(*own, strict=True))
    assert others.errors(trainable, padded(40)) == found
    lengths = lengths_in_each_shape(shapes)
    margin = rounding_margin(8, norm_error=found.norm, summation_error=found.summation)
    np.testing.assert_allclose(lengths, 1e-3 / (1 + margin), rtol=1e-12)
    # What the test would find: a margin for each shape.
    apart = lengths_in_each_shape(None)
    assert max(apart) - min(apart) > 1e-10 * 1e-3


def test_the_errors_of_a_single_shape_are_not_traced_twice():
    trainable, _, padded, shapes = viewed_problem()

    def untraced(state, records):
        raise AssertionError("traced")

    for alone in (None, lambda records: shapes(records)[:1]):
        assert OtherShapes(untraced, alone).errors(trainable, padded(1)) is NO_ERRORS
