"""A compiled function computes what the function says, compiles once per shape, and gives memory away when told to."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.runtime import jit
from dpmed.runtime.jit import Compiled, compiler_options, is_repeatable, through_branch
from dpmed.runtime.malloc import _glibc


def test_results_are_the_functions_and_it_is_traced_once_per_shape():
    traces = []

    def double(x, *, by=2):
        traces.append(x.shape)
        return x * by

    compiled = Compiled(double)
    for shape in ((3,), (3,), (4,)):
        x = np.arange(shape[0], dtype=np.float32)
        np.testing.assert_array_equal(compiled(x), 2 * x)
    assert traces == [(3,), (4,)]


def test_nothing_is_compiled_and_no_device_asked_before_the_first_call(monkeypatch):
    monkeypatch.setattr(jit, "compiler_options", lambda: pytest.fail("asked for the device"))
    Compiled(lambda x: x)


def test_memory_is_given_away_only_where_told():
    for donate, gone in ((0, True), ((), False)):
        x = jnp.arange(4.0)
        Compiled(lambda x: x + 1, donate=donate)(x)
        assert x.is_deleted() == gone


def test_the_programs_memory_can_be_asked_for():
    analysis = Compiled(lambda x: x @ x).lower(jax.ShapeDtypeStruct((8, 8), np.float32)).compile().memory_analysis()
    assert analysis.argument_size_in_bytes == analysis.output_size_in_bytes == 8 * 8 * 4


def test_options_are_left_out_where_the_compiler_does_not_know_them(monkeypatch):
    compiler_options.cache_clear()
    try:
        monkeypatch.setattr(jit, "_OPTIONS", {"cpu": {"xla_no_such_option": "X"}, "gpu": jit._OPTIONS["gpu"]})
        assert compiler_options() == {}
        compiler_options.cache_clear()
        # Any compiler knows the other devices' options: a misspelt one would be left out.
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert compiler_options() == {"xla_gpu_exclude_nondeterministic_ops": True}
        compiler_options.cache_clear()
        monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
        assert compiler_options() == {}
    finally:
        compiler_options.cache_clear()


def test_programs_of_a_gpu_are_repeatable_only_if_its_compiler_knows_how(monkeypatch):
    assert is_repeatable()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for known in (True, False):
        monkeypatch.setattr(jit, "compiler_options", lambda known=known: {"some": known} if known else {})
        assert is_repeatable() == known


def test_a_branch_that_is_taken_gives_the_same_tree_and_the_other_zeros():
    tree = {"a": jnp.asarray([1.0, jnp.nan]), "b": (jnp.arange(3), None)}
    found = jax.jit(through_branch)(True, tree)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(jax.jit(through_branch)(False, tree)))


COMPUTES = """
import os, resource
from dpmed.runtime.malloc import keep_freed_memory
if "{kept}" == "kept":
    keep_freed_memory(os.environ)
import numpy as np
from dpmed.runtime.jit import Compiled, on_device, wait_for
import jax.numpy as jnp

# 160 MB of temporary memory, since a product's operands and results are stored.
program = Compiled(lambda x: jnp.sum(jnp.tile(x, (40, 1)) @ x[:64]))
image = np.random.default_rng(0).random((1 << 14, 64), np.float32)
def call():
    wait_for(program(on_device(image)))
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    call()
before = faults()
for _ in range(3):
    call()
print(faults() - before)
"""


@pytest.mark.skipif(_glibc() is None, reason="settings of glibc")
def test_a_program_with_much_memory_takes_new_pages_only_once():
    def faults(kept):
        done = subprocess.run([sys.executable, "-c", COMPUTES.format(kept=kept)], capture_output=True, check=True)
        return int(done.stdout)

    assert 10 * faults("kept") < faults("by default")
