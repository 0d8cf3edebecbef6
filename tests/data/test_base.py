import json

import numpy as np
import pytest

from dpmed.data.base import Split
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
