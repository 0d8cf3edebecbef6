"""Kept descriptions: the same bits as traced anew, found only where all is the same, ignored when damaged."""

import stat
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.dpsgd.float64 import float64
from dpmed.runtime import likeness, programs, traced
from dpmed.runtime.jit import Compiled


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder in use, and functions of this file taken for dpmed's."""
    monkeypatch.setattr(programs, "_in_use", tmp_path)
    monkeypatch.setattr(likeness, "_PACKAGES", likeness._PACKAGES | {"tests", __name__.partition(".")[0]})
    return tmp_path / "traced"


def step(by, seen, tree, x):
    """As a step: a tree in and out, a sum in float64, one argument left out."""
    count = len(seen)
    with float64():
        total = tree["sum"] + by * x.astype(jnp.float64)
    return {"sum": total, "mean": jnp.tanh(tree["mean"]) + jnp.float32(count)}


def compiled(by=2.0, seen=()):
    return Compiled(partial(step, by, seen), donate=0, structure=lambda tree, _: tree)


def arguments(size=5):
    with float64():
        total = jnp.linspace(0, 1, size, dtype=jnp.float64)
    return {"sum": total, "mean": jnp.linspace(0, 1, 3, dtype=jnp.float32)}, np.linspace(0, 1, size, dtype=np.float32)


def bits(tree):
    return [(leaf.dtype, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


@pytest.fixture
def traces(monkeypatch):
    """How often a function was described, which is when it is traced."""
    found = []
    describe = traced._describe
    monkeypatch.setattr(traced, "_describe", lambda *given: found.append(given) or describe(*given))
    return found


def test_it_is_described_once_and_computes_the_same_bits(folder, traces, monkeypatch):
    first, second = compiled()(*arguments()), compiled()(*arguments())
    assert len(traces) == 1 and len(list(folder.iterdir())) == 1
    monkeypatch.setattr(programs, "_in_use", None)
    assert bits(first) == bits(second) == bits(compiled()(*arguments()))
    assert first["sum"].dtype == np.float64


def test_it_belongs_to_its_owner_alone(folder):
    compiled()(*arguments())
    (file,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and stat.S_IMODE(file.stat().st_mode) == 0o600


def test_other_constants_shapes_settings_and_sources_are_other_programs(folder, traces, monkeypatch):
    compiled()(*arguments())
    assert bits(compiled(3.0)(*arguments())) != bits(compiled()(*arguments()))
    compiled(seen=(1,))(*arguments())
    compiled()(*arguments(6))
    assert len(traces) == 4
    with jax.default_matmul_precision("highest"):
        compiled()(*arguments())
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    compiled()(*arguments())
    monkeypatch.setattr(traced, "_surroundings", lambda: "another version")
    compiled()(*arguments())
    assert len(traces) == 7 == len(list(folder.iterdir()))


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-1], lambda content: b"x" * 200])
def test_what_is_damaged_is_described_anew(folder, traces, damage):
    expected = bits(compiled()(*arguments()))
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert bits(compiled()(*arguments())) == expected
    assert len(traces) == 2 and file.read_bytes() == whole
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 1
    file.write_bytes(bytes(flipped))
    assert bits(compiled()(*arguments())) == expected
    assert len(traces) == 3


def test_a_description_for_other_arguments_is_not_used(folder, traces):
    """As if two names were the same: the digest of the content is right, the program is not."""
    compiled()(*arguments(6))
    (other,) = folder.iterdir()
    content = other.read_bytes()
    other.unlink()
    expected = bits(compiled()(*arguments()))
    (file,) = folder.iterdir()
    file.write_bytes(content)
    assert bits(compiled()(*arguments())) == expected


def test_nothing_is_kept_of_what_cannot_be_told(folder, monkeypatch):
    class Own:
        """Of the user's code."""

        def __len__(self):
            return 0

    monkeypatch.setattr(likeness, "_PACKAGES", likeness._PACKAGES - {"tests", __name__.partition(".")[0]})
    compiled(seen=Own())(*arguments())
    assert not folder.exists()


def test_nothing_is_kept_of_other_structures_or_several_devices(folder, monkeypatch):
    wrong = Compiled(partial(step, 2.0, ()), structure=lambda tree, x: (tree, x))
    assert set(wrong(*arguments())) == {"sum", "mean"}
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    compiled()(*arguments())
    assert not folder.exists()


def test_arrays_are_bound_so_that_a_second_step_is_no_other_program(folder):
    function = compiled()
    tree, x = arguments()
    state = traced.settled(tree)
    for _ in range(3):
        state = function(state, x)
    assert function._jitted._cache_size() == 1
    assert bits(traced.settled(arguments()[0])) == bits(arguments()[0])


def test_without_a_folder_arrays_stay_as_they_are(tmp_path):
    tree, _ = arguments()
    assert traced.settled(tree) is tree
    assert not programs.folder_in_use() and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_no_failure(folder):
    folder.write_text("a file in the way")
    expected = bits(compiled()(*arguments()))
    assert bits(compiled()(*arguments())) == expected


def test_the_oldest_are_forgotten(folder, monkeypatch):
    monkeypatch.setattr(traced, "_MOST_FILES", 2)
    for size in (3, 4, 5, 6):
        compiled()(*arguments(size))
    assert len(list(folder.iterdir())) == 2


def test_sources_and_versions_are_told():
    assert traced._surroundings() == traced._surroundings.__wrapped__()
    assert Path(traced.__file__).parents[1].name == "dpmed"
