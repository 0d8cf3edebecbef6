"""A data set by the user's own code: what a good one gives, and every way in which a bad one is refused."""

from dataclasses import replace

import numpy as np
import pytest

from dpmed.data.base import Dataset, Info, Sample, Split
from dpmed.data.build import build_dataset
from dpmed.data.readers.custom import CheckedDataset
from dpmed.errors import InputError
from dpmed.factories import Loaded
from dpmed.progress import Silent

LOADED = Loaded(name="own.data:make", function=dict, where="data.factory", module="own.data", version="1", digest="ab")
INFO = Info(
    name="own", task="classification", input_shape=(4, 4, 1), class_names=("a", "b"), scale=255.0, mean=(0.5,),
    std=(0.25,), unit="patient", outside_accounting=("Something.",),
)  # fmt: skip


class Own:
    """Six pictures of three patients."""

    def __init__(self, info=INFO, **changes):
        self.info = info
        self.labels = np.array([0, 1, 0, 1, 0, 1])
        self.groups = ["P1", "P1", "P2", "P2", "P3", "P3"]
        self.official_split = None
        self.target = None
        self.input = None
        self.facts = {"sex": list("fmfmfm")}
        for name, value in changes.items():
            setattr(self, name, value)

    def columns(self):
        return self.facts

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if isinstance(self.input, Exception):
            raise self.input
        value = np.full((4, 4, 1), index, np.uint8) if self.input is None else self.input
        return Sample(input=value, target=np.asarray(self.labels[index]) if self.target is None else self.target)


def checked(info=INFO, **changes):
    return CheckedDataset(Own(info, **changes), LOADED)


def test_a_good_one_passes_unchanged_with_the_ledgers_sentence():
    dataset = checked()
    assert isinstance(dataset, Dataset) and len(dataset) == 6
    assert dataset.labels.tolist() == [0, 1, 0, 1, 0, 1] and dataset.columns() == {"sex": list("fmfmfm")}
    assert dataset[3].input.max() == 3 and int(dataset[3].target) == 1
    assert dataset.info.name == "custom" and dataset.info.unit == "patient"
    first, second = dataset.info.outside_accounting
    assert first == "Something."
    assert "own.data:make (version 1, source SHA-256 ab)" in second and "unchecked" in second


def test_a_selection_is_a_data_set_like_it():
    split = Split(train=np.array([0, 1, 2, 3]), validation=np.array([4]), test=np.array([5]))
    dataset = checked(official_split=split, groups=list("ABCDEF")).select(np.array([1, 3, 5]))
    assert list(dataset.groups) == ["B", "D", "F"] and dataset.labels.tolist() == [1, 1, 1]
    assert dataset[2].input.max() == 5 and dataset.official_split.test.tolist() == [2]
    assert dataset.columns() == {"sex": ["m", "m", "m"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"info": {"scale": 1}}, "info is a dict, not a"),
        ({"info": replace(INFO, mean=(0.5, 0.5))}, "2 values of mean and 1 of std for 1 channels"),
        ({"info": replace(INFO, std=(0.0,))}, "not above 0"),
        ({"info": replace(INFO, mean=(float("nan"),))}, "not finite"),
        ({"info": replace(INFO, input_shape=(4, 4))}, r"input_shape = \(4, 4\)"),
        ({"info": replace(INFO, class_names=("a",))}, "1 class_names for classification"),
        ({"info": replace(INFO, task="regression", class_names=())}, "target_names, target_mean and target_std"),
        ({"labels": None}, "without labels"),
        ({"labels": np.array([0, 1, 2, 0, 1, 0])}, "labels from 0 to 2, but the classes are 0 to 1"),
        ({"labels": np.zeros(5, int)}, r"labels of shape \(5,\)"),
        ({"labels": np.zeros(6)}, "type float64, not 6 whole numbers"),
        ({"groups": ["P1"] * 5}, "5 groups for 6 samples"),
        ({"groups": [1] * 6}, "or some that are not text"),
        ({"facts": {"sex": ["f"]}}, "1 values in the column 'sex'"),
        ({"official_split": ([0], [1], [2])}, "official_split that is a tuple"),
        ({"official_split": Split(train=np.arange(5), validation=np.array([5]), test=np.array([9]))},
         "up to sample 9 of 6"),
        ({"official_split": Split(train=np.arange(5), validation=np.array([5]), test=np.array([], int))},
         "the unit 'P3' in two parts"),
        ({"input": np.zeros((4, 4, 1), np.float64)}, "as float64, which is none of uint8"),
        ({"input": ValueError("no disk")}, r"raised ValueError: no disk at .*test_custom\.py line"),
    ],
)  # fmt: skip
def test_a_bad_one_is_refused_before_anything_is_trained(changes, message):
    with pytest.raises(InputError, match=rf"data\.factory = 'own\.data:make': .*{message}"):
        checked(**changes)


@pytest.mark.parametrize(
    ("info", "changes", "message"),
    [
        (INFO, {"input": np.zeros((4, 5, 1), np.uint8)}, r"uint8 of shape \(4, 5, 1\).*info says \(4, 4, 1\)"),
        (INFO, {"input": np.full((4, 4, 1), np.nan, np.float32)}, "sample 1 with values that are not finite"),
        (INFO, {"target": np.array(0)}, "the target 0, but labels say 1"),
        (INFO, {"target": np.array([1])}, r"a target of shape \(1,\), not \(\)"),
        (replace(INFO, task="multi-label"), {"target": np.array([0, 2])}, "not -1 to 1"),
        (replace(INFO, task="segmentation"), {"target": np.full((4, 4), 2)}, "not 0 to 1"),
        (replace(INFO, task="segmentation"), {"target": np.zeros((4, 4), np.float32)}, "a target of type float32"),
    ],
)
def test_a_bad_sample_is_refused_by_number_when_it_is_asked_for(info, changes, message):
    dataset = checked(info, **changes)
    with pytest.raises(InputError, match=message):
        dataset[1]


def test_what_is_no_data_set_is_told_what_it_lacks():
    with pytest.raises(InputError, match="gave a list, which is no data set: it lacks info, labels, groups"):
        CheckedDataset([1, 2], LOADED)


def test_a_config_builds_it_and_a_limit_selects(data_config, monkeypatch, tmp_path):
    (tmp_path / "own_table.py").write_text(
        "from tests.data.readers.test_custom import Own\n\n"
        "def make(kind):\n    assert kind == 'six'\n    return Own()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = data_config("custom", factory="own_table:make", arguments={"kind": "six"}, limit=3)
    dataset = build_dataset(config, progress=Silent())
    assert len(dataset) == 3 and dataset[2].input.max() == 5
    with pytest.raises(InputError, match="raised AssertionError"):
        build_dataset(data_config("custom", factory="own_table:make", arguments={"kind": "7"}), progress=Silent())
    with pytest.raises(InputError, match="is in the data folder"):
        build_dataset(
            data_config("custom", factory="own_table:make", arguments={"kind": str(tmp_path)}), progress=Silent()
        )
