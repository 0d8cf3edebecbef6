"""A record's key is its own: it does not move when other records come, go or change places."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dpmed.config.data import DigitsData, FolderData
from dpmed.data.base import Info
from dpmed.data.identity import image_names, name_same_samples, record_keys, seeded_secret
from dpmed.data.storage.stored import ArrayDataset, Listing
from dpmed.progress import Silent

INFO = Info(
    name="points", task="classification", input_shape=(2,), class_names=("a", "b"),
    scale=1.0, mean=(0.0,), std=(1.0,), unit="image",
)  # fmt: skip
SECRET = seeded_secret(7)


class WithNames(ArrayDataset):
    def __init__(self, names):
        inputs, targets = np.zeros((len(names), 2), np.float32), np.zeros(len(names), np.int32)
        super().__init__(INFO, Listing(labels=targets, groups=names), inputs=inputs, targets=targets)
        self.names = names


def points(values):
    inputs = np.asarray(values, np.float32).reshape(-1, 1).repeat(2, axis=1)
    targets = np.zeros(len(inputs), np.int32)
    listing = Listing(labels=targets, groups=[str(number) for number in range(len(inputs))])
    return ArrayDataset(INFO, listing, inputs=inputs, targets=targets)


def of_singles(dataset, secret=SECRET):
    return record_keys(dataset, [np.array([number]) for number in range(len(dataset))], secret=secret)


@given(st.lists(st.text(min_size=1), min_size=2, max_size=12, unique=True), st.data())
def test_a_named_record_keeps_its_key_when_another_is_removed_or_all_change_places(names, data):
    keys = dict(zip(names, map(tuple, of_singles(WithNames(names))), strict=True))
    others = data.draw(st.permutations(names))[1:]
    assert all(keys[name] == tuple(key) for name, key in zip(others, of_singles(WithNames(others)), strict=True))
    assert len(set(keys.values())) == len(names)


def test_without_names_the_content_is_the_identity():
    whole, rest = of_singles(points([1, 2, 3, 4])), of_singles(points([4, 2, 3]))
    np.testing.assert_array_equal(rest, whole[[3, 1, 2]])
    assert len({tuple(key) for key in whole}) == 4


def test_a_record_of_several_samples_has_the_key_of_its_samples_in_any_order():
    dataset = WithNames(["p1/a", "p1/b", "p2/a"])
    first, second = record_keys(dataset, [np.array([0, 1]), np.array([2])], secret=SECRET)
    (again,) = record_keys(dataset, [np.array([1, 0])], secret=SECRET)
    np.testing.assert_array_equal(first, again)
    assert tuple(first) != tuple(second)


def test_an_image_without_a_name_is_named_by_its_content_and_not_by_its_target():
    few, more = points([1, 2]), points([2, 3, 1])
    more.targets[:] = 1
    assert image_names(few, [0, 1], Silent()) == image_names(more, [2, 0], Silent())
    listing = Listing(labels=None, groups=["a", "b"], images=[("first",), ("second",)])
    placed = ArrayDataset(INFO, listing, inputs=few.inputs, targets=few.targets)
    assert image_names(placed, [1], Silent()) == [("second", *image_names(few, [1], Silent())[0])]


def test_an_image_from_own_code_that_has_a_name_is_not_read():
    assert image_names(WithNames(["x", "y"]), [1], Silent()) == [("y",)]


def test_another_secret_gives_other_keys():
    dataset = points(range(50))
    assert not np.any(of_singles(dataset) == of_singles(dataset, seeded_secret(8)))


def test_tables_name_the_same_samples_however_these_are_decoded_and_split():
    def table(**changes):
        return FolderData(**{"name": "folder", "root": Path("images"), **changes})

    assert name_same_samples(table(), table(size=(64, 64), split_seed=3, cache=False, mean=(0.5,) * 3, std=(1.0,) * 3))
    for changes in ({"root": Path("others")}, {"limit": 10}, {"group_pattern": "(.*)_"}):
        assert not name_same_samples(table(), table(**changes))
    assert not name_same_samples(table(), DigitsData(name="digits"))
