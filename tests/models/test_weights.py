"""Weights: a round trip, Equinox's own reader, and files from strangers."""

import io
import resource

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.errors import InputError, RunError
from dpmed.models.weights import load_weights, save_weights

TREE = {"a": jnp.arange(6, dtype=jnp.float32).reshape(2, 3), "b": [jnp.int32(3), "text"]}
LIKE = {"a": jnp.zeros((2, 3)), "b": [jnp.int32(0), "text"]}


def test_a_round_trip_and_equinoxs_reader(tmp_path):
    save_weights(tmp_path / "m.eqx", TREE)
    for found in (load_weights(tmp_path / "m.eqx", LIKE), eqx.tree_deserialise_leaves(tmp_path / "m.eqx", LIKE)):
        np.testing.assert_array_equal(found["a"], TREE["a"])
        assert int(found["b"][0]) == 3
        assert found["b"][1] == "text"


@pytest.mark.parametrize("room", [100, 3_000, 22_000, 26_300])
def test_weights_that_the_disk_does_not_take_are_not_saved(tmp_path, room):
    # A limit on the size of files stands for the full disk; of the last one the end of the last array is what is lost.
    tree = [jnp.full(600, number, jnp.float32) for number in range(10)]
    save_weights(tmp_path / "m.eqx", tree)
    assert (tmp_path / "m.eqx").stat().st_size > 25_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (min(room, (tmp_path / "m.eqx").stat().st_size - 1), before[1]))
    try:
        with pytest.raises(RunError, match=r"new\.eqx: could not be written \(File too large\)"):
            save_weights(tmp_path / "new.eqx", tree)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["m.eqx"]


@pytest.mark.parametrize("cut", [0, 4, 60, 130, 140, -1])
def test_a_file_cut_short_is_named(tmp_path, cut):
    path = tmp_path / "m.eqx"
    save_weights(path, TREE)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"m\.eqx"):
        load_weights(path, LIKE)


def test_another_models_weights_are_refused(tmp_path):
    save_weights(tmp_path / "m.eqx", TREE)
    with pytest.raises(InputError, match=r"the model needs float32\[3, 2\]"):
        load_weights(tmp_path / "m.eqx", {"a": jnp.zeros((3, 2)), "b": [jnp.int32(0)]})
    with pytest.raises(InputError, match="more than"):
        load_weights(tmp_path / "m.eqx", {"a": LIKE["a"]})
    with pytest.raises(InputError, match="cannot be read"):
        load_weights(tmp_path / "none.eqx", LIKE)


def test_a_huge_or_pickled_array_is_refused_before_it_is_read(tmp_path):
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    pickled = io.BytesIO()
    np.save(pickled, np.asarray([{"a": 1}], dtype=object), allow_pickle=True)
    for name, content in (("huge", huge), ("pickled", pickled)):
        (tmp_path / name).write_bytes(content.getvalue())
        with pytest.raises(InputError, match="the model needs"):
            load_weights(tmp_path / name, LIKE)
