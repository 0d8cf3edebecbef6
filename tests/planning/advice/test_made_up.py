"""Made-up samples share nothing with the real ones but their shapes."""

from dataclasses import replace

import numpy as np
import pytest

from dpmed.data.base import Dataset
from dpmed.planning.advice.made_up import MadeUp, on_made_up_samples
from dpmed.planning.plan import plan_of
from tests.planning.advice.advised import gathered_of


@pytest.fixture(scope="module")
def plan():
    return plan_of(gathered_of())


@pytest.mark.parametrize(
    ("task", "shape"),
    [
        ("classification", ()),
        ("multi-label", (10,)),
        ("segmentation", (8, 8)),
        ("regression", (10,)),
        ("reconstruction", (8, 8, 1)),
    ],
)
def test_targets_suit_the_task(plan, task, shape):
    names = plan.dataset.info.class_names
    info = replace(plan.dataset.info, task=task, target_names=names if task == "regression" else ())
    made = MadeUp(info, 12)
    assert isinstance(made, Dataset)
    assert made[3].target.shape == shape and made[3].input.shape == (8, 8, 1)
    assert not np.array_equal(made[3].input, made[4].input) and np.array_equal(made[3].input, made[3].input)
    assert (made.labels is not None) == (task == "classification")
    assert len(made) == len(made.groups) == 12 and made.official_split is None and made.columns() == {}


def test_every_class_has_samples_and_a_patient_as_many_images_as_the_config_allows(plan):
    made = on_made_up_samples(plan)
    assert made.class_counts.tolist() == [1] * 10 and [list(one) for one in made.members] == [[0]]
    data = plan.config.data.model_copy(update={"max_samples_per_unit": 3})
    grouped = replace(
        plan, config=plan.config.model_copy(update={"data": data}), facts=replace(plan.facts, unit="patient")
    )
    assert [list(one) for one in on_made_up_samples(grouped).members] == [[0, 1, 2]]
    assert made.budget is plan.budget
