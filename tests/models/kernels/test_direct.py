"""Patches and sums over the places of a filter against loops over positions."""

import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.models.kernels.direct import by_xla, pad_first, patches, summed_over_places
from tests.models.test_convolution import plainly

CASES = [((5,), (3,), 1), ((5, 4), (3, 3), 1), ((5, 6), (5, 3), 2), ((3, 4, 2), (3, 3, 3), 1), ((4, 4), (1, 1), 1)]


def drawn(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(("sides", "kernel", "stride"), CASES)
def test_patches_times_filters_are_the_convolution(sides, kernel, stride):
    images, weight = drawn(2, *sides, 3), drawn(*kernel, 3, 4)
    wanted = np.stack([plainly(np.asarray(image), np.asarray(weight), stride) for image in images])
    out = tuple(wanted.shape[1:-1])
    seen = patches(images, kernel, stride, out)
    np.testing.assert_allclose(seen @ weight.reshape(-1, 4), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_xla(images, weight, stride), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("sides", "kernel", "stride"), CASES)
def test_sums_over_places_are_convolutions_with_ones(sides, kernel, stride):
    values = drawn(2, *sides)
    wanted = np.stack([plainly(np.asarray(one)[..., None], np.ones((*kernel, 1, 1)), stride)[..., 0] for one in values])
    found = summed_over_places(values, kernel, 1, stride=stride)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_pairs_are_moved_by_the_same_offset():
    rows = drawn(2, 4, 3, 5)
    flat = rows.reshape(-1, 5)
    pairs = (flat @ flat.T).reshape(2, 4, 3, 2, 4, 3)
    seen = patches(rows, (3, 3), 1, (4, 3)).reshape(len(flat), -1)
    found = summed_over_places(pairs, (3, 3), 2).reshape(len(flat), -1)
    np.testing.assert_allclose(found, seen @ seen.T, rtol=1e-5, atol=1e-5)


def test_layers_are_added_at_both_ends():
    x = drawn(3, 2)
    np.testing.assert_array_equal(pad_first(x, 2, -1.0), np.pad(x, ((2, 2), (0, 0)), constant_values=-1.0))
    assert pad_first(x, 0, -1.0) is x
