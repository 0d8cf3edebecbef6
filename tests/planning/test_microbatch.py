"""The microbatch that fits: the largest whose step needs no more than there is."""

import pytest

from dpmed.config.load import load_config
from dpmed.planning.computation import build_computation
from dpmed.planning.microbatch import choose_microbatch, step_memory
from dpmed.planning.plan import make_plan
from dpmed.planning.secrets import draw_secrets
from dpmed.progress import Silent


@pytest.fixture(scope="module")
def computation():
    settings = ["data.limit=120", "training.batch_size=16", "training.epochs=2", "model.width=[4]"]
    plan = make_plan(load_config("quickstart", settings).config, Silent())
    return build_computation(plan, draw_secrets(plan))


def test_the_choice_needs_at_most_the_memory_and_the_next_larger_one_more(computation):
    plan, step, state = computation.plan, computation.step, computation.initial
    needed = {size: step_memory(plan, step, state, size) for size in plan.microbatches[:4]}
    assert sorted(needed.values(), reverse=True) == list(needed.values())
    assert choose_microbatch(plan, step, state, memory=max(needed.values())) == plan.microbatches[0]
    chosen = choose_microbatch(plan, step, state, memory=max(needed.values()) - 1)
    assert chosen < plan.microbatches[0]
    assert step_memory(plan, step, state, chosen) < max(needed.values())


def test_if_nothing_fits_the_smallest_is_taken(computation):
    assert choose_microbatch(computation.plan, computation.step, computation.initial, memory=1) == 1
