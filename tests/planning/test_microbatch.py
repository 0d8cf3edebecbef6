"""The microbatch that fits: the largest whose step needs no more than the available memory."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from dpmed.config.load import load_config
from dpmed.planning.computation import build_computation
from dpmed.planning.microbatch import choose_microbatch, full_microbatch, public_microbatch, step_memory
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


class Asked:
    """A step that records the shape whose memory was requested."""

    def prepare(self, state, *, draw):
        raise NotImplementedError

    begin = accumulate = update = prepare

    def memory(self, state, records, mask):
        self.shape = records["inputs"].shape
        return 1


@pytest.mark.parametrize(("unit", "most", "views"), [("patient", 5, 5), ("patient", None, 1), ("image", 5, 1)])
def test_the_memory_is_that_of_records_as_they_are_padded(computation, unit, most, views):
    plan = computation.plan
    data = plan.config.data.model_copy(update={"max_samples_per_unit": most})
    plan = replace(plan, config=plan.config.model_copy(update={"data": data}), facts=replace(plan.facts, unit=unit))
    step = Asked()
    step_memory(plan, step, computation.initial, 4)
    assert step.shape[:2] == (4, views)


def test_the_public_microbatch_has_the_shapes_of_a_patients_and_nothing_of_their_content(computation):
    plan = computation.plan
    full, _ = full_microbatch(plan, 4)
    found = public_microbatch(plan, 4)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), found) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), full
    )
    others = public_microbatch(replace(plan, members=plan.members[1:]), 4)
    for leaf, full_leaf, other in zip(*map(jax.tree.leaves, (found, full, others)), strict=True):
        np.testing.assert_array_equal(leaf, other)
        np.testing.assert_array_equal(leaf, np.repeat(leaf[:1], 4, axis=0))
        assert leaf is not full_leaf
    assert not np.array_equal(found["inputs"], full["inputs"])
