"""The largest microbatch that fits, found with few compilations."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmed.dpsgd.microbatch import is_out_of_memory, largest_fitting, usable_memory

SIZES = [100, 64, 48, 32, 24, 16, 12, 8, 4, 2, 1]


@given(fixed=st.integers(0, 1000), each=st.integers(1, 100), limit=st.integers(1, 12_000))
def test_the_largest_that_fits_is_chosen_if_memory_grows_evenly(fixed, each, limit):
    asked = []

    def memory(size):
        asked.append(size)
        return fixed + each * size

    found = largest_fitting(memory, SIZES, limit)
    fitting = [size for size in SIZES if fixed + each * size <= limit]
    assert fixed + each * found <= limit or found == SIZES[-1]
    # Never more than the best.
    assert not fitting or found <= fitting[0]
    if fixed == 0 and fitting:
        assert found == fitting[0]
        assert len(asked) <= 2
    assert asked == sorted(set(asked), reverse=True)


def test_nothing_is_compiled_where_there_is_no_choice():
    def memory(size):
        raise AssertionError(size)

    assert largest_fitting(memory, [7], 1) == 7


@pytest.mark.parametrize(("error", "expected"), [(MemoryError(), True), (ValueError("RESOURCE_EXHAUSTED"), False)])
def test_want_of_memory_is_known_by_its_kind(error, expected):
    assert is_out_of_memory(error) is expected


def test_the_devices_own_error_is_known():
    script = """
import resource
import jax, jax.numpy as jnp
from dpmed.dpsgd.microbatch import is_out_of_memory
large = jax.jit(lambda x: jnp.cumsum(jnp.broadcast_to(x, (1 << 29,))))
small = jax.jit(lambda x: jnp.cumsum(jnp.broadcast_to(x, (1 << 10,))))
compiled = [one.lower(jnp.float32(1)).compile() for one in (large, small)]
sizes = dict(line.split(":") for line in open("/proc/self/status"))
resource.setrlimit(resource.RLIMIT_AS, (int(sizes["VmSize"].split()[0]) * 1024 + (1 << 29),) * 2)
try:
    jax.block_until_ready(compiled[0](jnp.float32(1)))
except Exception as error:
    print(is_out_of_memory(error), float(compiled[1](jnp.float32(1))[-1]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "1024.0"], done.stderr


def test_this_machine_has_some_memory():
    assert usable_memory() > 1 << 20
