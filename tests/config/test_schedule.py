import json

import pytest
from pydantic import TypeAdapter, ValidationError

from dpmed.config.schedule import ScheduleConfig

ADAPTER = TypeAdapter(ScheduleConfig)


def make(**table):
    return ADAPTER.validate_json(json.dumps(table))


@pytest.mark.parametrize("table", [{"name": "constant"}, {"name": "cosine"}, {"name": "plateau"}])
def test_a_schedule_is_chosen_by_its_name_and_begins_without_warm_up(table):
    assert make(**table).name == table["name"] and make(**table).warmup_epochs == 0


def test_steps_need_to_be_told_when():
    assert make(name="steps", epochs=[10, 20.5]).epochs == (10, 20.5)
    for wrong in ({}, {"epochs": []}, {"epochs": [0]}):
        with pytest.raises(ValidationError, match="epochs"):
            make(name="steps", **wrong)


def test_only_the_schedule_that_looks_at_data_says_so():
    for name, looks in (("constant", False), ("cosine", False), ("plateau", True)):
        assert ("private" in type(make(name=name)).__doc__) == looks


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("constant", {"warmup_epochs": -1}),
        ("cosine", {"final": 1.1}),
        ("plateau", {"patience": 0}),
        # A factor of 1 would reduce nothing, for ever.
        ("plateau", {"factor": 1}),
        ("plateau", {"smallest": 1}),
    ],
)
def test_what_makes_no_sense_is_refused(name, wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        make(name=name, **wrong)
