import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from dpmed.attacks.prior_aware.candidates import (
    Channel,
    Contest,
    clipped_gradients,
    gram_matrix,
    gram_root,
    step_evidence,
)
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.metrics.intervals import binomial_interval
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.tradeoff import Composition

BOTH = ("worst-case", "relaxed")


def played(gradients, *, steps, trials, noise, rate, seed=0, adversaries=BOTH):
    contest = Contest(
        len(gradients),
        trials,
        channel=Channel(noise_std=noise, sampling_rate=rate),
        adversaries=adversaries,
        generator=np.random.default_rng(seed),
    )
    for _ in range(steps):
        contest.step(gradients.astype(np.float32))
    return contest


@pytest.mark.parametrize("noise", [0.2, 0.7, 3.0])
def test_two_candidates_in_one_sure_step_are_told_apart_by_their_distance(noise):
    gradients = np.array([[0.6, 0.8, 0.0], [0.0, 0.5, -0.5]])
    contest = played(gradients, steps=1, trials=20_000, noise=noise, rate=1.0)
    exact = norm.cdf(np.linalg.norm(gradients[0] - gradients[1]) / (2 * noise))
    interval = binomial_interval(contest.successes("worst-case"), 20_000, confidence=0.9999)
    assert interval.low <= exact <= interval.high


@pytest.mark.parametrize("seed", range(3))
def test_orthogonal_gradients_of_full_length_in_one_sure_step_reach_the_integral(seed):
    # The target's score is N(λ/2, λ), each of the others' N(-λ/2, λ), all independent: P(all others are smaller).
    count, noise = 20, 0.45
    contest = played(np.eye(count), steps=1, trials=20_000, noise=noise, rate=1.0, seed=seed)
    grid = np.linspace(-10, 10, 20_001)
    exact = float(np.sum(norm.pdf(grid) * norm.cdf(grid + 1 / noise) ** (count - 1)) * (grid[1] - grid[0]))
    interval = binomial_interval(contest.successes("worst-case"), 20_000, confidence=0.9999)
    assert interval.low <= exact <= interval.high


@pytest.mark.parametrize("adversary", BOTH)
@pytest.mark.parametrize("noise", [0.1, 0.6, 0.9, 1.3, 2.0, 3.0, 5.0, 20.0])
def test_success_stays_under_the_bound_at_the_same_noise_steps_rate_and_prior(adversary, noise):
    # Orthogonal gradients of norm C: the strongest evidence that clipping leaves.
    count, steps, rate, trials = 50, 40, 0.4, 2_000
    contest = played(np.eye(count), steps=0, trials=trials, noise=noise, rate=rate)
    contest.play_ideal(1.0, steps=steps)
    mechanism = SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps)
    bound = Composition.of([mechanism], adversary).power(1 / count)
    interval = binomial_interval(contest.successes(adversary), trials, confidence=0.99)
    assert interval.low <= bound.upper
    if 0.1 < bound.upper < 0.9:
        # Not by being weak: in the middle it succeeds far more often than guessing does.
        assert interval.low > 2 / count


def test_the_sampled_inner_products_are_distributed_as_with_noise_on_every_parameter():
    generator = np.random.default_rng(5)
    gradients = generator.standard_normal((4, 30)) * 0.2
    noise, rate, trials = 0.5, 0.3, 20_000
    contest = played(gradients, steps=1, trials=trials, noise=noise, rate=rate)
    successes = 0
    channel = Channel(noise_std=noise, sampling_rate=rate)
    for _ in range(trials // 1000):
        targets = generator.integers(4, size=1000)
        joined = generator.random(1000) < rate
        residual = joined[:, None] * gradients[targets] + noise * generator.standard_normal((1000, 30))
        scores = step_evidence(
            residual @ gradients.T, (gradients**2).sum(axis=1), adversary="worst-case", channel=channel
        )
        successes += int((scores.argmax(axis=1) == targets).sum())
    difference = (contest.successes("worst-case") - successes) / trials
    assert abs(difference) < 4 * math.sqrt(2 * 0.25 / trials)


def test_ideal_steps_are_steps_with_orthogonal_gradients_of_full_length():
    by_gradients = played(2 * np.eye(5), steps=4, trials=300, noise=1.5, rate=0.6)
    ideal = played(np.eye(5), steps=0, trials=300, noise=1.5, rate=0.6)
    ideal.play_ideal(2.0, steps=4)
    for adversary in BOTH:
        assert ideal.evidence[adversary] == pytest.approx(by_gradients.evidence[adversary], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("rate", [0.05, 0.5, 1.0])
def test_evidence_is_the_log_of_the_ratio_of_densities(rate):
    generator = np.random.default_rng(1)
    gradient, residuals, std = generator.standard_normal(3), generator.standard_normal((6, 3)), 0.8
    channel = Channel(noise_std=std, sampling_rate=rate)

    def density(mean):
        return norm.pdf((residuals - mean) / std).prod(axis=1)

    ratio = {
        "worst-case": density(gradient) / density(0),
        "relaxed": 0.5 * (density(gradient) + density(-gradient)) / density(0),
    }
    for adversary in BOTH:
        found = step_evidence(
            (residuals @ gradient)[:, None], np.array([gradient @ gradient]), adversary=adversary, channel=channel
        )
        assert found[:, 0] == pytest.approx(np.log(1 - rate + rate * ratio[adversary]), rel=1e-9, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(0, 1), st.floats(1e-9, 1e9), st.floats(1e-6, 1.0))
def test_evidence_is_finite_at_any_noise_and_blind_to_the_sign_when_relaxed(inner, square, std, rate):
    channel, squares = Channel(noise_std=std, sampling_rate=rate), np.array([square])
    for adversary in BOTH:
        assert np.isfinite(step_evidence(np.array([[inner]]), squares, adversary=adversary, channel=channel)).all()
    plus, minus = (
        step_evidence(np.array([[sign * inner]]), squares, adversary="relaxed", channel=channel) for sign in (1, -1)
    )
    assert plus == minus


def test_hardly_any_noise_names_whoever_ever_took_part():
    count, steps, rate, trials = 30, 3, 0.2, 4_000
    contest = played(np.eye(count), steps=steps, trials=trials, noise=1e-8, rate=rate)
    ever = 1 - (1 - rate) ** steps
    low, high = binom.ppf([1e-5, 1 - 1e-5], trials, ever + (1 - ever) / count)
    for adversary in BOTH:
        assert low <= contest.successes(adversary) <= high


def test_candidates_without_gradient_are_named_by_luck():
    contest = played(np.zeros((10, 5)), steps=3, trials=5_000, noise=1.0, rate=0.5)
    low, high = binom.ppf([1e-5, 1 - 1e-5], 5_000, 0.1)
    assert low <= contest.successes("worst-case") <= high


@pytest.mark.parametrize("scale", [0.0, 1e-8, 1.0, 1e4])
@pytest.mark.parametrize("count", [6, 300])
def test_a_root_of_a_singular_gram_matrix_gives_it_back(scale, count):
    gradients = scale * np.random.default_rng(0).standard_normal((count, 3))
    gradients[1] = gradients[0]
    gradients[2] = 0
    gram = gram_matrix(gradients.astype(np.float64))
    largest = gram.diagonal().max()
    assert gram == pytest.approx(np.einsum("ip,jp->ij", gradients, gradients), abs=1e-14 * largest)
    root = gram_root(gram)
    assert root @ root.T == pytest.approx(gram, abs=max(3e-12 * largest, 1e-200))


def test_gradients_are_clipped_as_in_training():
    weights = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
    records = {"x": jnp.array([[3.0, 4.0], [0.03, 0.04], [jnp.nan, 0.0], [1.0, 1.0]])}

    def loss(leaves, record):
        return jnp.dot(leaves["a"], record["x"]) + leaves["b"] * jnp.sum(record["x"])

    mask = jnp.array([True, True, True, False])
    found = np.asarray(
        jax.jit(lambda w, r, m: clipped_gradients(loss, w, r, mask=m, clipping=FlatClipping(0.5)))(
            weights, records, mask
        )
    )
    raw = np.array([[3.0, 4.0, 7.0], [0.03, 0.04, 0.07]])
    expected = [raw[0] * 0.5 / np.linalg.norm(raw[0]), raw[1], np.zeros(3), np.zeros(3)]
    assert found == pytest.approx(np.stack(expected), rel=1e-4)
    assert np.linalg.norm(found.astype(np.float64), axis=1).max() <= 0.5


def test_what_has_no_meaning_is_an_error():
    with pytest.raises(ValueError, match="noise_std"):
        Channel(noise_std=0.0, sampling_rate=0.5)
    with pytest.raises(ValueError, match="sampling_rate"):
        Channel(noise_std=1.0, sampling_rate=0.0)
    with pytest.raises(ValueError, match="candidates"):
        played(np.eye(1), steps=1, trials=1, noise=1.0, rate=1.0)
