"""The clipped sum: against a loop and against optax, and the sensitivity that all privacy rests on, of every kind."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.dpsgd.clipping import (
    AdaptiveClipping,
    AutomaticClipping,
    FlatClipping,
    PerLayerClipping,
    clip_and_sum,
)
from dpmed.privacy.accountant import SampledGaussian, epsilon
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


# Squares as float32 has them: nothing, denormal, tiny, usual, huge, the largest.
SQUARES = st.one_of(
    st.sampled_from([0.0, 1e-45, 1e-38, 3e38]),
    st.floats(-40, 38).map(lambda exponent: 10.0**exponent),
    st.floats(0, 4),
)


def adaptive(**changes):
    given = {"clipping_norm": 1.0, "quantile": 0.5, "rate": 0.2, "count_noise": 1e-6, "expected_batch_size": 100}
    return AdaptiveClipping(**{**given, **changes})


@pytest.mark.parametrize("kind", [FlatClipping, PerLayerClipping, AutomaticClipping, "smallest", "adaptive"])
@given(squares=st.lists(SQUARES, min_size=1, max_size=6), norm=st.sampled_from([1e-5, 1e-3, 0.5, 7.0, 1e6]))
@settings(max_examples=60, deadline=None)
def test_no_record_is_longer_than_the_norm_after_clipping(kind, squares, norm):
    kinds = {"smallest": lambda norm: AutomaticClipping(norm, stability=1e-5), "adaptive": lambda norm: adaptive()}
    clipping = kinds.get(kind, kind)(norm)
    # One record of several leaves; their total must be finite, or the record is not usable and counts as zero.
    leaves = [jnp.asarray([square / len(squares)], jnp.float32) for square in squares]
    moved = jnp.float32(norm) if kind == "adaptive" else None
    factors, _ = clipping.factors(leaves, moved)
    total = sum(np.float64(factor[0]) ** 2 * np.float64(leaf[0]) for factor, leaf in zip(factors, leaves, strict=True))
    assert total <= float(clipping.sensitivity(moved)) ** 2


def test_per_layer_clipping_shortens_a_leaf_by_its_own_length_alone():
    leaves = [jnp.asarray([4.0, 0.01], jnp.float32), jnp.asarray([0.01, 0.01], jnp.float32)]
    factors, shortened = PerLayerClipping(1.0).factors(leaves, None)
    np.testing.assert_allclose(factors, [[1 / (2 * np.sqrt(2)), 1], [1, 1]], rtol=2e-5)
    assert shortened.tolist() == [True, False]


def test_automatic_clipping_is_the_formula():
    factors, shortened = AutomaticClipping(0.5, stability=0.25).factors([jnp.asarray([1.0, 0.0], jnp.float32)], None)
    np.testing.assert_allclose(factors[0], [0.5 / 1.25, 2.0], rtol=2e-5)
    assert shortened.tolist() == [True, False]


@pytest.mark.parametrize("kind", [FlatClipping, PerLayerClipping, AutomaticClipping])
def test_a_constant_norm_leaves_nothing_in_the_state_and_the_noise_as_it_is(kind):
    clipping = kind(0.5)
    assert clipping.begin() is None
    assert clipping.follow(None, jnp.float32(3), []) is None
    assert clipping.sensitivity(None) == 0.5
    assert clipping.gradient_noise(1.3) == 1.3


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("start", [1e-2, 50.0])
def test_the_adaptive_norm_finds_the_quantile_of_known_lengths(quantile, start):
    lengths = np.random.default_rng(0).lognormal(0.0, 0.7, size=1000)
    clipping = adaptive(clipping_norm=start, quantile=quantile, expected_batch_size=1000)
    squares = [jnp.asarray(lengths**2, jnp.float32)]
    norm = clipping.begin()
    for _ in range(400):
        _, shortened = clipping.factors(squares, norm)
        surplus = (1000 - 2 * jnp.sum(shortened)).astype(jnp.float32) / 2
        norm = clipping.follow(norm, surplus, [jnp.zeros(1, jnp.float32)])
    assert np.quantile(lengths, quantile - 0.01) < float(norm) < np.quantile(lengths, quantile + 0.01)


def test_a_move_of_the_norm_is_the_formula_with_noise():
    clipping = adaptive(clipping_norm=2.0, quantile=0.3, rate=0.5, count_noise=4.0)
    moved = clipping.follow(clipping.begin(), jnp.float32(7.5), [jnp.asarray([-0.25], jnp.float32)])
    share = (7.5 - 0.25 * 4.0) / 100 + 0.5
    np.testing.assert_allclose(moved, 2.0 * np.exp(-0.5 * (share - 0.3)), rtol=1e-6)


@pytest.mark.parametrize(("surplus", "limit"), [(-1e30, 1e6), (1e30, 1e-5)])
def test_the_norm_stays_within_its_limits_whatever_the_counts_say(surplus, limit):
    clipping = adaptive()
    moved = clipping.follow(clipping.begin(), jnp.float32(surplus), [jnp.zeros(1, jnp.float32)])
    assert float(moved) == pytest.approx(limit)


@given(noise=st.floats(0.05, 50), ratio=st.floats(1.001, 1e3))
@settings(max_examples=50, deadline=None)
def test_sum_and_count_together_cost_what_the_budget_says(noise, ratio):
    clipping = adaptive(count_noise=ratio * noise / 2)
    left = clipping.gradient_noise(noise)
    assert left > noise
    assert 1 / left**2 + 1 / (2 * clipping.count_noise) ** 2 == pytest.approx(1 / noise**2, rel=1e-9)


def test_two_gaussians_composed_have_the_epsilon_of_the_one():
    # A Gaussian of multiplier z has parameter 1/z of Gaussian differential privacy; composed, the squares of
    # parameters add up (Dong et al., 2022, Corollary 3.3).
    noise, steps = 1.5, 4
    clipping = adaptive(count_noise=1.0)
    left = clipping.gradient_noise(noise)
    parameter = np.sqrt(steps * (1 / left**2 + 1 / 4.0))
    found = epsilon(SampledGaussian(noise_multiplier=1 / parameter, sampling_rate=1.0, steps=1), 1e-5)
    wanted = epsilon(SampledGaussian(noise_multiplier=noise, sampling_rate=1.0, steps=steps), 1e-5)
    assert found == pytest.approx(wanted, rel=2e-3)


@pytest.mark.parametrize("noise", [2.0, 3.0])
def test_counts_that_cost_more_than_the_budget_are_refused(noise):
    with pytest.raises(ValueError, match="count_noise"):
        adaptive(count_noise=1.0).gradient_noise(noise)


@pytest.mark.parametrize(
    "changes",
    [
        {"clipping_norm": 1e7},
        {"clipping_norm": 1e-6},
        {"quantile": 0.0},
        {"quantile": 1.0},
        {"rate": 0.0},
        {"count_noise": 0.0},
        {"expected_batch_size": 0},
    ],
)
def test_impossible_adaptive_clipping_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        adaptive(**changes)


def test_a_state_without_a_norm_is_not_taken_for_one():
    with pytest.raises(ValueError, match="clipping norm"):
        adaptive().sensitivity(None)
