"""Poisson sampling: binomial batch sizes, independence, reproducibility; and batches without privacy."""

import numpy as np
import pytest
from scipy import stats

from dpmed.dpsgd.sampling import PoissonSampler, ShuffledSampler


@pytest.mark.parametrize("source", ["os-entropy", "seeded"])
def test_batch_sizes_follow_the_binomial_law(source):
    # 4,000 batches, chi-square over the central values at p > 1e-4 (one in ten thousand honest runs fails).
    population, rate, batches = 300, 0.1, 4000
    sampler = PoissonSampler(population, rate, source, seed=3)
    sizes = np.array([len(sampler.draw(step)) for step in range(batches)])
    edges = np.arange(20, 42)
    law = stats.binom(population, rate)
    probabilities = np.array([law.cdf(edges[0] - 1), *law.pmf(edges), law.sf(edges[-1])])
    counts = np.array([(sizes < edges[0]).sum(), *[(sizes == edge).sum() for edge in edges], (sizes > edges[-1]).sum()])
    assert stats.chisquare(counts, probabilities * batches).pvalue > 1e-4


@pytest.mark.parametrize("source", ["os-entropy", "seeded"])
def test_every_record_joins_with_the_sampling_rate_and_pairs_are_independent(source):
    sampler = PoissonSampler(40, 0.3, source, seed=1)
    joins = np.zeros((3000, 40))
    for step in range(3000):
        joins[step, sampler.draw(step)] = 1
    assert np.abs(joins.mean(axis=0) - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / 3000)
    correlation = np.corrcoef(joins.T)[~np.eye(40, dtype=bool)]
    assert np.abs(correlation).max() < 6 / np.sqrt(3000)


def test_seeded_draws_are_a_function_of_seed_and_step():
    one, same, other = (PoissonSampler(1000, 0.2, "seeded", seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.draw(17), same.draw(17))
    assert not np.array_equal(one.draw(17), one.draw(18))
    assert not np.array_equal(one.draw(17), other.draw(17))


def test_release_draws_are_new_every_time():
    sampler = PoissonSampler(1000, 0.5, "os-entropy")
    assert not np.array_equal(sampler.draw(0), sampler.draw(0))


def test_rate_one_takes_everybody_and_a_tiny_rate_almost_nobody():
    np.testing.assert_array_equal(PoissonSampler(9, 1.0, "os-entropy").draw(0), np.arange(9))
    sizes = [len(PoissonSampler(100, 1e-4, "seeded", seed=2).draw(step)) for step in range(50)]
    assert 0 in sizes


def test_populations_beyond_one_chunk_are_drawn_evenly():
    drawn = PoissonSampler((1 << 20) + 500_000, 0.01, "seeded", seed=4).draw(0)
    assert (np.diff(drawn) > 0).all()
    share = (drawn >= 1 << 20).mean()
    expected = 500_000 / ((1 << 20) + 500_000)
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / len(drawn))


@pytest.mark.parametrize(("population", "rate"), [(0, 0.5), (10, 0.0), (10, 1.1), (10, -0.1), (10, float("nan"))])
def test_impossible_settings_are_refused(population, rate):
    with pytest.raises(ValueError, match="Expected"):
        PoissonSampler(population, rate, "seeded")


def test_shuffled_batches_visit_everybody_once_an_epoch():
    sampler = ShuffledSampler(10, 5, seed=1)
    first = np.concatenate([sampler.draw(0), sampler.draw(1)])
    np.testing.assert_array_equal(np.sort(first), np.arange(10))
    second = np.concatenate([sampler.draw(2), sampler.draw(3)])
    assert not np.array_equal(first, second)
    with pytest.raises(ValueError, match="batch_size"):
        ShuffledSampler(10, 11, seed=1)


def test_a_shared_key_gives_all_processes_the_same_batches_by_the_binomial_law():
    key = bytes(range(32))
    one, same, other = (PoissonSampler(300, 0.1, "os-entropy", key=secret) for secret in (key, key, key[::-1]))
    np.testing.assert_array_equal(one.draw(5), same.draw(5))
    assert not np.array_equal(one.draw(5), one.draw(6)) and not np.array_equal(one.draw(5), other.draw(5))
    sizes = np.array([len(one.draw(step)) for step in range(4000)])
    edges = np.arange(20, 42)
    law = stats.binom(300, 0.1)
    probabilities = np.array([law.cdf(edges[0] - 1), *law.pmf(edges), law.sf(edges[-1])])
    counts = np.array([(sizes < edges[0]).sum(), *[(sizes == edge).sum() for edge in edges], (sizes > edges[-1]).sum()])
    assert stats.chisquare(counts, probabilities * 4000).pvalue > 1e-4
    # The key is secret and must not be shown.
    assert "key" not in repr(one)
