"""The clipped sum: against a loop and against optax, and the sensitivity that all privacy rests on."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.dpsgd.clipping import FlatClipping, clip_and_sum
from tests.oracles import clipped_sum_by_loop, global_norm


def random_gradients(seed, batch, scale=1.0):
    rng = np.random.default_rng(seed)
    scales = scale * 10.0 ** rng.uniform(-2, 2, size=batch)
    leaves = [rng.normal(size=(batch, 3, 2)), rng.normal(size=(batch, 5)), rng.normal(size=(batch,))]
    return [(leaf * scales.reshape(-1, *[1] * (leaf.ndim - 1))).astype(np.float32) for leaf in leaves]


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
        # The margin of 1e-5 is part of the rule.
        np.testing.assert_allclose(found, wanted, rtol=5e-5, atol=5e-5 * norm)


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
    moved = [
        np.asarray(a, np.float64) - np.asarray(b, np.float64)
        for a, b in zip(clip(gradients, mask, norm).gradients, clip(gradients, without, norm).gradients, strict=True)
    ]
    # Summing in float32 rounds relative to the sum, not to the one summand: allow for that alone.
    rounding = 2e-7 * batch * norm
    assert global_norm(moved) <= norm + rounding


@pytest.mark.parametrize("size", [0.0, 1e-44, 1e-38, 1e-30, 1e-20, 1e-3, 1e18, 1e30, 3e38])
def test_a_single_gradient_never_exceeds_the_norm_however_tiny_or_huge(size):
    gradients = [np.full((1, 40), size, np.float32), np.full((1, 3, 3), -size, np.float32)]
    result = clip(gradients, np.ones(1, bool), 1.5)
    norm = global_norm([np.asarray(leaf) for leaf in result.gradients])
    assert np.isfinite(norm)
    assert norm <= 1.5
    if size * 7 > 1.5:
        assert norm >= 1.5 * (1 - 3e-5)
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
    assert clip(random_gradients(0, 2), np.ones(2, bool), 0.046).sensitivity == 0.046


@pytest.mark.parametrize("norm", [0.0, -1.0, np.inf, np.nan])
def test_an_impossible_norm_is_refused(norm):
    with pytest.raises(ValueError, match="clipping_norm"):
        FlatClipping(norm)
