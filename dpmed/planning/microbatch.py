"""The microbatch of a plan on this machine."""

import jax
import numpy as np
from jaxtyping import Bool, PyTree, Shaped

from dpmed.data.loader import Loader
from dpmed.dpsgd.microbatch import largest_fitting, usable_memory
from dpmed.dpsgd.step import Step, StepState
from dpmed.planning.plan import Plan
from dpmed.training.objective import device_records


def choose_microbatch(plan: Plan, step: Step, state: StepState, *, memory: int | None = None) -> int:
    """The largest of the plan's microbatches of which a step fits into `memory`, by XLA's own analysis.

    Args:
        plan: gives the choice.
        step: of the plan.
        state: of the step.
        memory: bytes on each device; None for what the first device of this process has to give.
    """
    if len(plan.microbatches) == 1:
        return plan.microbatches[0]
    limit = usable_memory() if memory is None else memory
    return largest_fitting(
        lambda microbatch: step_memory(plan, step, state, microbatch), list(plan.microbatches), limit
    )


def step_memory(plan: Plan, step: Step, state: StepState, microbatch: int) -> int:
    """Bytes that a step needs on each device; it is compiled for that, and nothing is trained."""
    return step.memory(state, *full_microbatch(plan, microbatch))


def full_microbatch(
    plan: Plan, microbatch: int
) -> tuple[PyTree[Shaped[np.ndarray, "record ..."]], Bool[np.ndarray, " record"]]:
    """A microbatch of the plan's first record, many times, padded as in training; and its mask.

    It takes the memory of one record. Several devices get equal shares, of a few more records if need be.
    """
    loader = Loader(plan.dataset, plan.members, microbatch=1, views=public_views(plan))
    one = next(loader.load(np.zeros(1, np.int64)))
    record = device_records(one.inputs, one.targets, one.weights, keys=one.keys, step=0)
    count = -(-microbatch // jax.device_count()) * jax.device_count()
    return jax.tree.map(lambda leaf: np.broadcast_to(leaf, (count, *leaf.shape[1:])), (record, one.mask))


def public_views(plan: Plan) -> int | None:
    """The number of views to which the plan's records are padded where it is public, so that shapes tell of nobody.

    None where nothing is private, where a record is one image, or where the config bounds no unit's images: then all
    records are padded to the largest there is.
    """
    is_grouped = plan.budget is not None and plan.facts.unit != "image"
    return plan.config.data.max_samples_per_unit if is_grouped else None
