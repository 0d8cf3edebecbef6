"""Double precision inside programs that otherwise use only float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.dpsgd import float64 as room
from dpmed.dpsgd.float64 import UNIT_ROUNDOFF, float64, require_float64
from dpmed.errors import RunError


def test_a_program_computes_in_float64_where_it_says_so_and_nowhere_else():
    def program(x):
        outside = jnp.ones(3)
        with float64():
            total = x.astype(jnp.float64) + 1e-12
        return outside, total

    outside, total = jax.jit(program)(jnp.float32(1))
    assert outside.dtype == jnp.float32
    assert total.dtype == jnp.float64
    assert float(total) == np.float64(1) + np.float64(1e-12)
    assert jnp.ones(1).dtype == jnp.float32


def test_the_unit_roundoff_is_that_of_float64():
    assert 2 * UNIT_ROUNDOFF == np.finfo(np.float64).eps


def test_this_device_has_float64_and_one_without_is_refused(monkeypatch):
    require_float64()
    require_float64.cache_clear()
    # A device whose arithmetic is float32's, whatever the program says.
    monkeypatch.setattr(room.jax, "jit", lambda function: lambda x, y: function(np.float32(x), np.float32(y)))
    with pytest.raises(RunError, match="no float64"):
        require_float64()
    require_float64.cache_clear()
