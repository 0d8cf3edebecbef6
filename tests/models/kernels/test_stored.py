"""Numbers that pass through a branch are the same numbers, computed once."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.models.kernels.stored import stored, with_stored_gradient


def computed(function, *arguments):
    """In how many parts of the compiled program numbers are rounded to integers."""
    return len(re.findall(r" floor\(", jax.jit(function).lower(*arguments).compile().as_text()))


def test_what_is_stored_is_not_computed_again():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 64, 16)), jnp.float32)

    def copies(keep, x):
        y = keep(jnp.floor(x))
        return y.T, jnp.roll(y, 1, axis=0).swapaxes(1, 2), y[::-1].swapaxes(0, 1)

    # Once for all numbers, and once for the first alone, which chooses the branch.
    assert computed(partial(copies, stored), x) == 2
    assert computed(partial(copies, lambda y: y), x) == 3


@pytest.mark.parametrize("first", [0.0, -0.0, 1.0, -3.5, np.inf, -np.inf, np.nan, 1e-45])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_whatever_is_stored_stays_as_it_is(first, dtype):
    x = jnp.asarray([first, 2.0, np.nan, 4.0], dtype)
    found = jax.jit(stored)(x)
    assert found.dtype == dtype
    np.testing.assert_array_equal(np.asarray(found, np.float32), np.asarray(x, np.float32))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(with_stored_gradient(x) * jnp.arange(4.0))))(jnp.ones(4))
    np.testing.assert_array_equal(gradient, np.arange(4.0))
    over_records = jax.jit(jax.vmap(stored, in_axes=1, out_axes=1))(jnp.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(over_records, np.arange(6.0).reshape(2, 3))
