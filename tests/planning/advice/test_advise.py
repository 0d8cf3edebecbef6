"""Advice as a whole: it uses public facts alone, and its rows equal the plans of the same config."""

import json
from dataclasses import replace

import pytest

from dpmed.errors import InputError
from dpmed.planning.advice import advise as room
from dpmed.planning.advice.advise import advise
from dpmed.planning.advice.step_time import StepTime
from dpmed.planning.plan import plan_of
from dpmed.progress import Silent
from tests.planning.advice.advised import gathered_of

STEP = StepTime(microbatch=64, record_seconds=0.01, update_seconds=0.5, memory_bytes=1000)


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.setattr(room, "measure_step", lambda plan: STEP)


def test_the_advised_row_is_the_plan_of_its_overrides(measured):
    gathered = gathered_of("training.batch_size=5000")
    advice = advise(gathered, Silent())
    plan = plan_of(replace(gathered, config=advice.setting.applied(gathered.config)))
    assert advice.own is None and advice.advised.sizes.budget == plan.budget
    content = json.loads(json.dumps(advice.to_json()))
    assert content["advice"]["noise_multiplier"] == plan.budget.noise_multiplier
    assert content["advice"]["steps"] == plan.steps
    assert content["advice"]["seconds"] == pytest.approx(
        STEP.predict(batch_size=plan.config.training.batch_size, train_size=plan.train_size, steps=plan.steps)
    )
    assert content["train_size"] == plan.train_size and content["unit_of_privacy"] == "image"
    assert f"training.batch_size={plan.config.training.batch_size}" in content["set"]


def test_adaptive_clipping_without_noise_for_gradients_is_refused(measured):
    gathered = gathered_of("privacy.clipping.name=adaptive", "privacy.clipping.count_noise=0.1")
    with pytest.raises(InputError, match="nothing of the budget for gradients"):
        advise(gathered, Silent())


def test_training_without_privacy_is_refused(measured):
    with pytest.raises(InputError, match="private training"):
        advise(gathered_of("privacy="), Silent())
