"""Any data set as one of reconstruction: targets are inputs, all else is as before."""

import numpy as np
import pytest

from dpmed.config.load import load_config
from dpmed.data.base import Dataset
from dpmed.data.build import build_dataset
from dpmed.data.loader import Gathers, Loader
from dpmed.data.self_target import SelfTarget
from dpmed.data.split import split_dataset
from dpmed.errors import InputError
from dpmed.progress import Silent


@pytest.fixture(scope="module")
def digits():
    return build_dataset(load_config("quickstart").config.data, progress=Silent())


def test_the_target_of_an_image_is_the_image(digits):
    found = SelfTarget(digits)
    assert isinstance(found, Dataset)
    assert isinstance(found, Gathers)
    assert len(found) == len(digits)
    for number in (0, 17, len(digits) - 1):
        sample = found[number]
        np.testing.assert_array_equal(sample.input, digits[number].input)
        np.testing.assert_array_equal(sample.target, digits[number].input)
        assert sample.target.dtype == digits[number].input.dtype


def test_only_task_and_classes_change(digits):
    found = SelfTarget(digits)
    assert (found.info.task, found.info.class_names) == ("reconstruction", ())
    for name in ("input_shape", "scale", "mean", "std", "unit", "outside_accounting", "name"):
        assert getattr(found.info, name) == getattr(digits.info, name)
    np.testing.assert_array_equal(found.labels, digits.labels)
    assert list(found.groups) == list(digits.groups)
    assert found.columns() == digits.columns()
    assert found.official_split is digits.official_split


class OneByOne:
    """A data set without `gather`."""

    def __init__(self, dataset):
        self.info, self.labels, self.groups = dataset.info, dataset.labels, dataset.groups
        self.official_split, self.columns = dataset.official_split, dataset.columns
        self._dataset = dataset

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, index):
        return self._dataset[index]


def test_many_at_once_are_those_one_by_one_with_and_without_gathering(digits):
    numbers = np.array([5, 2, 90])
    wanted = np.stack([digits[int(number)].input for number in numbers])
    for dataset in (digits, OneByOne(digits)):
        images, targets = SelfTarget(dataset).gather(numbers)
        np.testing.assert_array_equal(images, wanted)
        np.testing.assert_array_equal(targets, wanted)
    loader = Loader(SelfTarget(digits), [np.array([n]) for n in range(10)], microbatch=4)
    (records,) = loader.load(np.array([1, 3]))
    np.testing.assert_array_equal(records.inputs, records.targets)


def test_the_config_asks_for_it_and_the_split_is_that_of_the_labels():
    config, plain = (
        load_config("quickstart", overrides).config.data
        for overrides in (("data.reconstruct=true", 'loss={ name = "mse" }'), ())
    )
    dataset = build_dataset(config, progress=Silent())
    assert dataset.info.task == "reconstruction"
    split = split_dataset(dataset, config, seed=3)
    wanted = split_dataset(build_dataset(plain, progress=Silent()), plain, seed=3)
    np.testing.assert_array_equal(split.train, wanted.train)
    np.testing.assert_array_equal(split.test, wanted.test)


def test_a_classifier_cannot_reconstruct():
    from dpmed.planning.plan import make_plan

    config = load_config("quickstart", ("data.reconstruct=true",)).config
    with pytest.raises(InputError, match=r"mlp returns one vector.*unet"):
        make_plan(config, Silent())
