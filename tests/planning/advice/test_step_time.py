"""What a step costs: measured without reading any patient's sample, and added up as in the loop."""

from dataclasses import replace

import jax
import pytest

from dpmed.planning.advice.made_up import MadeUp
from dpmed.planning.advice.step_time import StepTime, measure_step
from dpmed.planning.plan import plan_of
from tests.planning.advice.advised import gathered_of


class Sealed(MadeUp):
    """A data set whose samples must not be read."""

    def __getitem__(self, index):
        raise AssertionError("a sample was looked at")


def test_no_sample_is_looked_at():
    plan = plan_of(gathered_of())
    # As optax computes.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = measure_step(replace(plan, dataset=Sealed(plan.dataset.info, len(plan.dataset))))
    assert found.record_seconds > 0 and found.update_seconds > 0 and found.memory_bytes > 0
    assert 1 <= found.microbatch <= plan.microbatches[0]


def test_time_adds_up():
    step = StepTime(microbatch=64, record_seconds=0.01, update_seconds=0.5, memory_bytes=1)
    # One microbatch, padded to 48, holds nearly every batch of 24 out of 1,000.
    assert step.predict(batch_size=24, train_size=1000, steps=10) == pytest.approx(10 * (48 * 0.01 + 0.5))
    # With 64 each, 4 are full and the last is half full on average.
    assert step.predict(batch_size=256, train_size=1000, steps=2) == pytest.approx(2 * (4.5 * 64 * 0.01 + 0.5))
    assert step.predict(batch_size=8, train_size=8, steps=1) == pytest.approx(8 * 0.01 + 0.5)
