"""A run's folder tells who took part, and whether the data set is still the same."""

import csv
from dataclasses import replace

import pytest

from dpmed.data.base import Derived
from dpmed.errors import InputError
from dpmed.workflows.train.kept_split import check_split, write_split


@pytest.fixture
def path(tmp_path, plan):
    write_split(tmp_path, plan)
    return tmp_path


def test_a_data_set_that_has_changed_is_noticed(path, plan):
    check_split(path, plan)
    moved = replace(plan, split=replace(plan.split, train=plan.split.train[:-1]))
    with pytest.raises(InputError, match="has changed since"):
        check_split(path, moved)


class Renamed(Derived):
    """The same samples with other units or names."""

    def __init__(self, dataset, groups, names):
        super().__init__(dataset)
        self._found = groups, names

    groups = property(lambda self: self._found[0])
    names = property(lambda self: self._found[1])

    def __getitem__(self, index):
        return self.dataset[index]


def test_samples_that_belong_to_other_units_or_have_other_names_are_noticed(path, plan):
    dataset = plan.dataset
    others = [str(number // 2) for number in range(len(dataset))]
    for groups, names in ((others, None), (dataset.groups, others)):
        with pytest.raises(InputError, match="belong to other units"):
            check_split(path, replace(plan, dataset=Renamed(dataset, groups, names)))
    (path / "split.csv").write_text((path / "split.csv").read_text().rsplit("\n", 2)[0] + "\n")
    with pytest.raises(InputError, match="belong to other units"):
        check_split(path, plan)
    (path / "split.csv").unlink()
    check_split(path, plan)


def test_everyone_can_look_up_who_took_part(path, plan):
    rows = list(csv.DictReader((path / "split.csv").read_text().splitlines()))
    assert sorted(int(row["number"]) for row in rows) == list(range(len(plan.dataset)))
    for part, numbers in plan.split.parts().items():
        assert {int(row["number"]) for row in rows if row["part"] == part} == set(numbers.tolist())
    assert all(row["unit"] == plan.dataset.groups[int(row["number"])] for row in rows)
