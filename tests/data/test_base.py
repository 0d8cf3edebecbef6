import json

import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.data.base import Scaling, Split, require_column
from dpmed.errors import InputError


def test_a_split_survives_the_way_through_json():
    split = Split(train=np.array([0, 2, 5]), validation=np.array([1]), test=np.array([3, 4]))
    back = Split.from_json(json.loads(json.dumps(split.to_json())))
    for name, part in split.parts().items():
        assert np.array_equal(part, back.parts()[name])


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"train": [1], "validation": [1], "test": []},
        {"train": [2, 1], "validation": [], "test": []},
        {"train": [-1], "validation": [], "test": []},
        {"train": [0.5], "validation": [], "test": []},
        {"train": ["a"], "validation": [], "test": []},
        {"train": [10**30], "validation": [], "test": []},
        {"train": 3, "validation": [], "test": []},
    ],
)
def test_a_damaged_split_is_refused_with_the_files_name(content):
    with pytest.raises(InputError, match=r"split\.json"):
        Split.from_json(content, where="split.json")


def test_selecting_renumbers_by_place():
    split = Split(train=np.array([0, 2, 4]), validation=np.array([1]), test=np.array([3]))
    part = split.select(np.array([2, 3, 4]))
    assert part.to_json() == {"train": [0, 2], "validation": [], "test": [1]}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaling_takes_scale_mean_and_std_out_and_puts_them_back(dtype):
    scaling = Scaling(scale=16.0, mean=(0.3, 0.5), std=(0.35, 2.0))
    stored = np.random.default_rng(0).uniform(0, 16, (3, 4, 2)).astype(dtype)
    wanted = (stored.astype(np.float64) / 16 - np.array([0.3, 0.5])) / np.array([0.35, 2.0])
    found = scaling.apply(stored)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scaling.undo(found), stored, rtol=1e-5, atol=1e-5)
    if dtype == np.float32:
        np.testing.assert_array_equal(np.asarray(scaling.apply(jnp.asarray(stored))), found)


def test_a_column_that_is_not_there_is_refused_with_those_that_are():
    require_column(["site", "age"], "age", where="break_down_by")
    with pytest.raises(InputError) as caught:
        require_column(["site", "age"], "sex", where="break_down_by")
    assert str(caught.value) == "break_down_by: the data set has no column 'sex'. Its columns are age, site."
    with pytest.raises(InputError, match=r"It has none; data\.columns names those of a table"):
        require_column([], "sex", where="break_down_by")
