"""The microbatch of a plan on this machine."""

from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Bool, PyTree, Shaped

from dpmed.data.loader import Loader, Records, view_bounds
from dpmed.dpsgd.microbatch import largest_fitting, usable_memory
from dpmed.dpsgd.step import Step, StepState
from dpmed.planning.plan import Plan
from dpmed.runtime.jit import is_cpu
from dpmed.training.objective import device_records, in_all_shapes

# A CPU computes about as fast with so many values at once as with more (docs/performance.md), but fills less of the
# last microbatch with padding, needs less memory, and measures the effect of places sooner. Single volumes are slower
# than two.
_CPU_VALUES, _CPU_RECORDS = 1 << 18, 2
_MEBIBYTE = 1 << 20


def choose_microbatch(plan: Plan, step: Step, state: StepState, *, memory: int | None = None) -> int:
    """The largest useful one of the plan's microbatches whose step fits into `memory`, by XLA's own analysis.

    Args:
        plan: provides the candidates.
        step: the plan's step.
        state: the step's state.
        memory: bytes on each device; None for what is available on the first device of this process.
    """
    candidates = _useful(plan)
    if len(candidates) == 1:
        return candidates[0]
    limit = usable_memory() if memory is None else memory
    return largest_fitting(lambda microbatch: step_memory(plan, step, state, microbatch), candidates, limit)


def _useful(plan: Plan) -> list[int]:
    """The plan's microbatches, on a CPU without those from which private training would gain little."""
    if len(plan.microbatches) == 1 or plan.budget is None or not is_cpu():
        return list(plan.microbatches)
    records, _ = full_microbatch(plan, 1)
    values = records["inputs"][0].size * plan.config.augmentation.multiplicity
    most = max(_CPU_RECORDS, _CPU_VALUES // values) * jax.device_count()
    return [size for size in plan.microbatches if size <= most] or [plan.microbatches[-1]]


def step_memory(plan: Plan, step: Step, state: StepState, microbatch: int) -> int:
    """Bytes that a step needs on each device at most; the step is compiled, and nothing is trained."""
    return step.memory(state, *full_microbatch(plan, microbatch))


def full_microbatch(
    plan: Plan, microbatch: int
) -> tuple[PyTree[Shaped[np.ndarray, "record ..."]], Bool[np.ndarray, " record"]]:
    """A microbatch that repeats the plan's first record, padded to the most views in training, and its mask.

    It takes the memory of one record. The number of records is rounded up so that all devices get equal shares.
    """
    bounds = public_views(plan)
    views = None if bounds is None else bounds[-1:]
    loader = Loader(plan.dataset, plan.members, microbatch=1, views=views)
    one = next(loader.load(np.zeros(1, np.int64)))
    record = device_records(one, step=0)
    count = -(-microbatch // jax.device_count()) * jax.device_count()
    return jax.tree.map(lambda leaf: np.broadcast_to(leaf, (count, *leaf.shape[1:])), (record, one.mask))


def public_microbatches(plan: Plan, microbatch: int) -> Iterator[PyTree[Shaped[np.ndarray, "record ..."]]]:
    """A microbatch of each shape that training may have, which repeats a random record, nobody's."""
    records, mask = full_microbatch(plan, microbatch)
    rng = np.random.default_rng(0)

    def drawn(like: jax.ShapeDtypeStruct) -> Shaped[np.ndarray, "1 ..."]:
        shape = (1, *like.shape[1:])
        if np.issubdtype(like.dtype, np.integer):
            return rng.integers(0, np.iinfo(np.int8).max, shape, like.dtype)
        return rng.standard_normal(shape).astype(like.dtype)

    for shapes in in_all_shapes(records, views=public_views(plan)):
        targets, weights = shapes["targets"], shapes["weights"]
        one = Records(
            inputs=drawn(shapes["inputs"]),
            targets=np.zeros((1, *targets.shape[1:]), targets.dtype),
            weights=np.full((1, *weights.shape[1:]), 1 / weights.shape[1], weights.dtype),
            mask=mask[:1],
            numbers=np.zeros(1, np.int64),
            keys=np.ones((1, *shapes["key"].shape[1:]), np.uint32),
        )
        record = device_records(one, step=0)
        yield jax.tree.map(lambda leaf: np.broadcast_to(leaf, (len(mask), *leaf.shape[1:])), record)


def public_views(plan: Plan) -> tuple[int, ...] | None:
    """The public numbers of views to which the plan's records are padded.

    None if nothing is private, if a record is one image, or if the config does not limit the images of a unit: all
    records are then padded to the largest one.
    """
    most = plan.config.data.max_samples_per_unit
    is_grouped = plan.budget is not None and plan.facts.unit != "image"
    return view_bounds(most) if is_grouped and most is not None else None


def describe_memory(size: int, microbatch: int) -> str:
    """The memory of a step, for the user.

    Args:
        size: bytes.
        microbatch: records at once.
    """
    mebibytes = "under 1 MiB" if size < _MEBIBYTE else f"{size / _MEBIBYTE:,.0f} MiB"
    return f"{mebibytes} with {microbatch:,} record{'s' * (microbatch != 1)} at once"
