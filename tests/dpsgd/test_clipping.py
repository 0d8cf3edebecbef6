"""Factors of every kind of clipping: no record longer than C, the formulas, and the adaptive norm."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.dpsgd.clipping import AdaptiveClipping, AutomaticClipping, FlatClipping, PerLayerClipping
from dpmed.dpsgd.float64 import float64
from dpmed.privacy.accountant import epsilon
from dpmed.privacy.mechanism import SampledGaussian


@pytest.mark.parametrize("norm", [0.0, -1.0, np.inf, np.nan])
def test_an_impossible_norm_is_refused(norm):
    with pytest.raises(ValueError, match="clipping_norm"):
        FlatClipping(norm)


# Squared norms of float32 gradients: zero, denormal, tiny, usual, huge, largest.
SQUARES = st.one_of(
    st.sampled_from([0.0, 2e-90, 1e-76, 1e77]),
    st.floats(-80, 77).map(lambda exponent: 10.0**exponent),
    st.floats(0, 4),
)
# Rounding of the few float64 operations that compute a factor.
ROUNDING = 1e-14


def adaptive(**changes):
    given = {"clipping_norm": 1.0, "quantile": 0.5, "rate": 0.2, "count_noise": 1e-6, "expected_batch_size": 100}
    return AdaptiveClipping(**{**given, **changes})


@pytest.mark.parametrize("kind", [FlatClipping, PerLayerClipping, AutomaticClipping, "smallest", "adaptive"])
@given(squares=st.lists(SQUARES, min_size=1, max_size=6), norm=st.sampled_from([1e-5, 1e-3, 0.5, 7.0, 1e6]))
@settings(max_examples=60, deadline=None)
def test_no_record_is_longer_than_the_norm_after_clipping(kind, squares, norm):
    kinds = {"smallest": lambda norm: AutomaticClipping(norm, stability=1e-5), "adaptive": lambda norm: adaptive()}
    clipping = kinds.get(kind, kind)(norm)
    moved = jnp.float32(norm) if kind == "adaptive" else None
    with float64():
        # One record with several leaves.
        leaves = [jnp.asarray([square / len(squares)], jnp.float64) for square in squares]
        factors, _ = clipping.factors(leaves, moved)
        assert all(factor.dtype == jnp.float64 for factor in factors)
    lengths = [float(factor[0]) * float(leaf[0]) ** 0.5 for factor, leaf in zip(factors, leaves, strict=True)]
    assert np.linalg.norm(lengths) <= float(clipping.sensitivity(moved)) * (1 + ROUNDING)


def test_per_layer_clipping_shortens_a_leaf_by_its_own_length_alone():
    leaves = [jnp.asarray([4.0, 0.01], jnp.float32), jnp.asarray([0.01, 0.01], jnp.float32)]
    factors, clipped = PerLayerClipping(1.0).factors(leaves, None)
    np.testing.assert_allclose(factors, [[1 / (2 * np.sqrt(2)), 1], [1, 1]], rtol=2e-5)
    assert clipped.tolist() == [True, False]


def test_automatic_clipping_is_the_formula():
    factors, clipped = AutomaticClipping(0.5, stability=0.25).factors([jnp.asarray([1.0, 0.0], jnp.float32)], None)
    np.testing.assert_allclose(factors[0], [0.5 / 1.25, 2.0], rtol=2e-5)
    assert clipped.tolist() == [True, False]


@pytest.mark.parametrize("kind", [FlatClipping, PerLayerClipping, AutomaticClipping])
def test_a_constant_norm_leaves_nothing_in_the_state_and_the_noise_as_it_is(kind):
    clipping = kind(0.5)
    assert clipping.begin() is None
    assert clipping.next_norm(None, jnp.float32(3), []) is None
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
        _, clipped = clipping.factors(squares, norm)
        surplus = (1000 - 2 * jnp.sum(clipped)).astype(jnp.float32) / 2
        norm = clipping.next_norm(norm, surplus, [jnp.zeros(1, jnp.float32)])
    assert np.quantile(lengths, quantile - 0.01) < float(norm) < np.quantile(lengths, quantile + 0.01)


def test_a_move_of_the_norm_is_the_formula_with_noise():
    clipping = adaptive(clipping_norm=2.0, quantile=0.3, rate=0.5, count_noise=4.0)
    moved = clipping.next_norm(clipping.begin(), jnp.float32(7.5), [jnp.asarray([-0.25], jnp.float32)])
    share = (7.5 - 0.25 * 4.0) / 100 + 0.5
    np.testing.assert_allclose(moved, 2.0 * np.exp(-0.5 * (share - 0.3)), rtol=1e-6)


@pytest.mark.parametrize(("surplus", "limit"), [(-1e30, 1e6), (1e30, 1e-5)])
def test_the_norm_stays_within_its_limits_whatever_the_counts_say(surplus, limit):
    clipping = adaptive()
    moved = clipping.next_norm(clipping.begin(), jnp.float32(surplus), [jnp.zeros(1, jnp.float32)])
    assert float(moved) == pytest.approx(limit)


@given(noise=st.floats(0.05, 50), ratio=st.floats(1.001, 1e3))
@settings(max_examples=50, deadline=None)
def test_sum_and_count_together_cost_what_the_budget_says(noise, ratio):
    clipping = adaptive(count_noise=ratio * noise / 2)
    left = clipping.gradient_noise(noise)
    assert left > noise
    assert 1 / left**2 + 1 / (2 * clipping.count_noise) ** 2 == pytest.approx(1 / noise**2, rel=1e-9)


def test_two_gaussians_composed_have_the_epsilon_of_the_one():
    # A Gaussian with noise multiplier z has parameter 1/z in Gaussian differential privacy; under composition the
    # squared parameters add up (Dong et al., 2022, Corollary 3.3).
    noise, steps = 1.5, 4
    clipping = adaptive(count_noise=1.0)
    left = clipping.gradient_noise(noise)
    parameter = float(np.sqrt(steps * (1 / left**2 + 1 / 4.0)))
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
