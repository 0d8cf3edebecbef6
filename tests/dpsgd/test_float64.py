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


@pytest.mark.parametrize("precision", ["bfloat16", "BF16_BF16_F32", "F32_F32_F32"])
def test_products_are_float64_whatever_precision_others_have(precision):
    left, right = np.random.default_rng(0).standard_normal((2, 8, 8))

    def program(left, right):
        with float64():
            return left @ right

    with float64():
        operands = jnp.asarray(left), jnp.asarray(right)
    with jax.default_matmul_precision(precision):
        found = jax.jit(program)(*operands)
    np.testing.assert_allclose(found, left @ right, rtol=0, atol=1e-14)


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
