"""Freed memory: kept for the next round, and given back beyond a limit; in processes of their own."""

import subprocess
import sys

import pytest

from dpmed.runtime.malloc import _glibc, _limits_of_groups

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


@pytest.mark.parametrize(
    ("groups", "files", "limits"),
    [
        # A container: its group is the root of what it sees.
        ("0::/", {"memory.max": "100"}, [100]),
        # A job of a batch system: the limit is that of the job or of a step.
        ("0::/slurm/job_1/step_0", {"slurm/job_1/memory.max": "300", "slurm/job_1/step_0/memory.max": "max"}, [300]),
        # The same with the first kind of groups, and in a container that is called by its name on the host.
        (
            "5:cpu:/x\n4:memory,hugetlb:/job/step\n0::/",
            {"memory/job/memory.limit_in_bytes": "200", "memory/memory.limit_in_bytes": "9223372036854771712"},
            [200, 9223372036854771712],
        ),
        ("4:memory:/docker/0a1b", {"memory/memory.limit_in_bytes": "400"}, [400]),
        ("0::/../elsewhere", {"memory.max": "max"}, []),
    ],
)
def test_the_limits_of_containers_and_batch_systems_are_known(tmp_path, groups, files, limits):
    (tmp_path / "own").write_text(groups + "\n")
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text + "\n")
    assert list(_limits_of_groups(tmp_path / "own", tmp_path / "groups")) == limits


def test_a_limit_of_the_shell_is_known():
    # The whole machine's memory where the machine has less than that.
    ending = """
before = allocation.machine_memory()
allocation.machine_memory.cache_clear()
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))
print(before, allocation.machine_memory())
"""
    before, limited = run(ending)
    assert limited == min(before, 1 << 30)
