"""Noise: its distribution, its independence across steps, leaves and keys, and that the key is never printed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dpmed.dpsgd import noise
from dpmed.dpsgd.cipher import Keystream
from dpmed.dpsgd.float64 import float64
from dpmed.dpsgd.noise import (
    _on_circle,
    gaussian_like,
    is_made_by_host,
    key_of,
    seeded_key,
    shaped_like,
    smallest_noise_multiplier,
    standard_normal,
)

SHAPES = {"weight": (40, 50), "bias": (500,), "scalar": ()}
TREE = {name: jnp.zeros(shape, jnp.float32) for name, shape in SHAPES.items()}


def draw(key, step, std=1.0, tree=TREE):
    return gaussian_like(key, step, tree, std=std)


def flat(tree):
    return np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(tree)]).astype(np.float64)


def test_noise_is_normal_with_the_given_standard_deviation():
    # 200,000 numbers; Kolmogorov-Smirnov at p > 1e-3, and the variance within 5 standard errors of chi-square.
    tree = {"only": jnp.zeros(200_000, jnp.float32)}
    numbers = flat(draw(seeded_key(1), 0, std=2.5, tree=tree))
    assert stats.kstest(numbers / 2.5, "norm").pvalue > 1e-3
    assert abs(numbers.var() / 2.5**2 - 1) < 5 * np.sqrt(2 / numbers.size)
    assert abs(numbers.mean()) < 5 * 2.5 / np.sqrt(numbers.size)
    # The fourth moment is 3, with standard error sqrt(96 / n).
    assert abs(((numbers / 2.5) ** 4).mean() - 3) < 5 * np.sqrt(96 / numbers.size)


def test_tails_are_as_heavy_as_they_should_be():
    tree = {"only": jnp.zeros(2_000_000, jnp.float32)}
    numbers = np.abs(flat(draw(seeded_key(2), 0, tree=tree)))
    for threshold in (3.0, 4.0):
        expected = 2 * stats.norm.sf(threshold) * numbers.size
        assert abs((numbers > threshold).sum() - expected) < 5 * np.sqrt(expected)


def test_steps_leaves_and_keys_are_uncorrelated():
    # 60 draws of 2,501 numbers: every pair's correlation stays below 6 standard errors.
    rows = [flat(draw(seeded_key(key), step)) for key in range(3) for step in range(20)]
    correlation = np.corrcoef(np.stack(rows))
    off_diagonal = correlation[~np.eye(len(rows), dtype=bool)]
    assert np.abs(off_diagonal).max() < 6 / np.sqrt(rows[0].size)
    weights = np.asarray(draw(seeded_key(7), 3)["weight"]).ravel()[:500]
    biases = np.asarray(draw(seeded_key(7), 3)["bias"])
    assert abs(np.corrcoef(weights, biases)[0, 1]) < 6 / np.sqrt(500)


def test_one_key_and_step_give_the_same_noise_and_another_step_gives_other_noise():
    first, again, other = draw(seeded_key(5), 8), draw(seeded_key(5), 8), draw(seeded_key(5), 9)
    np.testing.assert_array_equal(flat(first), flat(again))
    assert not np.isin(flat(first), flat(other)).all()


def test_numbers_are_those_of_box_and_muller_from_the_stream():
    # In float64 and one by one, from the same words; the last piece is shorter.
    count = 2 * (1 << 18) + 7
    pieces = standard_normal(seeded_key(4), 6, count=count, on_host=True)
    assert [len(piece) for piece in pieces] == [1 << 18, 1 << 18, 4, 4]
    stream = Keystream(seeded_key(4).words, (6, 0, 0))
    stream.words(8 * (1 << 18))
    words = stream.words(8 * 4).astype(np.float64).reshape(4, 2, 4)
    for pair in range(4):
        radius = [np.sqrt(-2 * np.log((words[draw, 0, pair] + 1) / 2**32)) for draw in range(4)]
        angle = [2 * np.pi * words[draw, 1, pair] / 2**32 for draw in range(4)]
        x = sum(r * np.cos(a) for r, a in zip(radius, angle, strict=True)) / 2
        y = sum(r * np.sin(a) for r, a in zip(radius, angle, strict=True)) / 2
        np.testing.assert_allclose([pieces[2][pair], pieces[3][pair]], [x, y], atol=2e-6)


@pytest.mark.parametrize("count", [0, 1, 5, 1000, 2 * (1 << 18) + 7, 6 * (1 << 18), 8 * (1 << 18) + 2])
def test_words_made_by_the_device_give_the_same_numbers_to_the_bit(monkeypatch, count):
    # Several whole pieces in one program, and more than one such program.
    monkeypatch.setattr(noise, "_PIECES_AT_ONCE", 3)
    made = [standard_normal(seeded_key(4), 6, count=count, stream=1, on_host=on_host) for on_host in (True, False)]
    host, device = (np.concatenate([np.zeros(0, np.float32), *pieces]) for pieces in made)
    np.testing.assert_array_equal(host, device)
    assert count <= len(host) < count + 2


def test_a_stream_that_is_too_short_is_refused_by_host_and_device():
    for on_host in (True, False):
        with pytest.raises(ValueError, match="Expected"):
            standard_normal(seeded_key(4), 6, count=2**34 + 1, on_host=on_host)


def test_the_host_makes_noise_on_a_cpu_and_the_device_elsewhere(monkeypatch):
    for backend in ("cpu", "gpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert is_made_by_host() == (backend == "cpu")


def test_seeds_use_all_256_bits_and_differ():
    words = {seeded_key(seed).words.tobytes() for seed in range(100)}
    assert len(words) == 100
    assert all(np.count_nonzero(np.frombuffer(word, np.uint32)) >= 6 for word in words)


def test_keys_are_never_printed():
    key = key_of(bytes(range(32)))
    assert key.words.shape == (8,)
    assert "secret" in repr(key)
    assert not any(str(word) in repr(key) for word in key.words)


def test_points_on_the_circle_are_cosine_and_sine_of_every_turn():
    words = np.concatenate(
        [
            np.arange(0, 2**32, 2**20 + 7, dtype=np.uint64),
            [0, 2**29, 2**29 - 1, 2**30, 2**31, 2**31 + 2**30, 2**31 + 2**29, 2**32 - 2**29, 2**32 - 1],
        ]
    ).astype(np.uint32)
    cosine, sine = _on_circle(jnp.asarray(words))
    angle = words.astype(np.float64) * (2 * np.pi / 2**32)
    np.testing.assert_allclose(cosine, np.cos(angle), atol=2e-7)
    np.testing.assert_allclose(sine, np.sin(angle), atol=2e-7)


def test_at_the_smallest_multiplier_noise_keeps_its_law_beside_the_largest_sum():
    count, norm = 8012, 1.0
    std = smallest_noise_multiplier(count) * norm
    with float64():
        total = jnp.full(100_000, count * norm, jnp.float64)
    normal = standard_normal(seeded_key(9), 0, count=total.size)

    def added(std):
        with float64():
            return total + shaped_like(total, normal, std=std)

    noise = np.asarray(jax.jit(added)(std)) - count * norm
    # The spacing of float64 numbers there is a thousandth of the noise: almost no entry is left without noise.
    assert np.mean(noise == 0) < 1e-3
    assert stats.kstest(noise / std, "norm").pvalue > 1e-3
    # In float32 every entry would be.
    assert not np.any(np.float32(count * norm) + (noise * 1e4).astype(np.float32) != np.float32(count * norm))
