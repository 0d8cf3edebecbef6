"""Freed memory: kept for the next round, and given back beyond a limit; in processes of their own."""

import subprocess
import sys

import pytest

from dpmed.runtime.malloc import _glibc

pytestmark = pytest.mark.skipif(_glibc() is None, reason="settings of glibc")

BODY = """
import ctypes, resource
from dpmed.runtime import malloc as allocation

def faults():
    library = allocation._glibc()
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    def round():
        block = library.malloc(ctypes.c_size_t(100 << 20))
        ctypes.memset(block, 1, 100 << 20)
        library.free(block)
        allocation.limit_kept_memory()
    for _ in range(4):
        round()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        round()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""


def run(ending):
    done = subprocess.run([sys.executable, "-c", BODY + ending], capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_kept_memory_comes_without_new_pages_and_is_new_each_time_by_default():
    (kept,) = run("assert allocation.keep_freed_memory({}); print(faults())")
    (by_default,) = run("print(faults())")
    assert 10 * kept < by_default


IN_A_THREAD = """
import threading
found = []
thread = threading.Thread(target=lambda: found.append(faults()))
thread.start(); thread.join()
print(*found)
"""


@pytest.mark.parametrize(
    "environment", [{"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}, {"JAX_NUM_CPU_DEVICES": "8"}]
)
def test_threads_of_several_devices_keep_large_blocks_in_the_shared_heap(environment):
    (shared,) = run(f"allocation.keep_freed_memory({environment})" + IN_A_THREAD)
    (own,) = run("allocation.keep_freed_memory({})" + IN_A_THREAD)
    assert 10 * shared < own


def test_what_is_kept_beyond_the_limit_is_returned():
    ending = """
allocation.machine_memory = lambda: 40 << 20
allocation.keep_freed_memory({})
many = faults()
print(many, allocation._resident_memory() >> 20)
"""
    many, resident = run(ending)
    assert many > 100  # 100 MiB are 25,600 pages, or 50 huge ones
    assert resident < 90


def test_below_the_limit_free_blocks_are_not_looked_through():
    # After a large compilation, going through all blocks takes a millisecond or more each round.
    ending = """
allocation.keep_freed_memory({})
asked = []
allocation._glibc().mallinfo2 = lambda: asked.append(1)
allocation.limit_kept_memory()
print(len(asked))
"""
    assert run(ending) == [0]
