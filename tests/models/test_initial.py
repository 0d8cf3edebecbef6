from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.models import initial
from dpmed.models.initial import filled, normal
from tests.compiled import AS_SHIPPED


def words(numbers):
    return np.asarray(numbers).view(np.uint32)


@pytest.fixture
def no_compilation(monkeypatch):
    """JAX's own function must not be needed."""
    monkeypatch.setattr(jax.random, "normal", None)


# One block, a block's edges, several blocks, none.
@pytest.mark.parametrize("shape", [(), (0, 4), (1,), (640,), (3, 3, 8, 16), (1 << 17,), ((1 << 17) + 1,), (3, 130_003)])
def test_the_numbers_are_those_of_jax_bit_by_bit(shape):
    key = jax.random.fold_in(jax.random.key(123_456_789), 7)
    found = normal(key, shape)
    assert isinstance(found, jax.Array) and found.shape == shape and found.dtype == jnp.float32
    assert np.array_equal(words(found), words(jax.random.normal(key, shape, jnp.float32)))


@pytest.mark.parametrize("shape", [(1000,), (3, 3, 8, 16)])
def test_so_they_are_as_the_command_compiles_both(shape, monkeypatch):
    key = jax.random.key(5)
    theirs = jax.jit(lambda key: jax.random.normal(key, shape, jnp.float32), compiler_options=AS_SHIPPED)(key)
    monkeypatch.setattr(initial, "_draw", jax.jit(partial(initial._block, 1 << 17), compiler_options=AS_SHIPPED))
    assert np.array_equal(words(normal(key, shape)), words(theirs))


def test_one_program_serves_all_shapes(no_compilation, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        initial, "_draw", lambda words, first: sizes.append(int(first)) or np.zeros(1 << 17, np.float32)
    )
    normal(jax.random.key(0), (3, 5))
    normal(jax.random.key(0), (3, 100_000))
    assert sizes == [0, 0, 1 << 17, 2 << 17]


def test_the_numbers_are_standard_normal(no_compilation):
    found = np.asarray(normal(jax.random.key(3), (400, 500)), np.float64).ravel()
    assert abs(found.mean()) < 5 / 200_000**0.5
    assert abs(found.var() - 1) < 5 * (2 / 200_000) ** 0.5
    assert len(np.unique(found)) > 0.98 * len(found)  # blocks and places do not repeat


@pytest.mark.parametrize(
    "make", [lambda: jax.random.key(4, impl="rbg"), lambda: jax.random.split(jax.random.key(4))[1]]
)
def test_another_generator_and_a_traced_key_get_jaxs_numbers_too(make):
    key, shape = make(), (5, 3)
    expected = words(jax.random.normal(key, shape, jnp.float32))
    assert np.array_equal(words(normal(key, shape)), expected)
    assert np.array_equal(words(jax.jit(lambda key: normal(key, shape))(key)), expected)


@pytest.mark.parametrize("std", [0.02, 2**0.5 / 3, 0.0])
def test_a_standard_deviation_gives_the_bits_of_jaxs_product(std):
    key, shape = jax.random.key(11), (64, 33)
    assert np.array_equal(words(normal(key, shape, std=std)), words(std * jax.random.normal(key, shape, jnp.float32)))
    assert np.array_equal(
        words(jax.jit(lambda key: normal(key, shape, std=std))(key)),
        words(jax.jit(lambda key: std * jax.random.normal(key, shape, jnp.float32))(key)),
    )


def test_no_program_is_compiled_for_a_shape(caplog):
    normal(jax.random.key(0), (2, 3), std=0.5)
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        normal(jax.random.key(1), (7, 9), std=0.5)
        filled((4, 6), 1.0)
    compiled = [record.message for record in caplog.records if "Compiling" in record.message]
    assert not [line for line in compiled if "7,9" in line or "4,6" in line]


def test_a_filled_array_is_jaxs():
    assert np.array_equal(filled((2, 3), 1.0), jnp.ones((2, 3), jnp.float32))
    assert filled(4, 0.0).dtype == jnp.float32 and isinstance(filled(4, 0.0), jax.Array)
