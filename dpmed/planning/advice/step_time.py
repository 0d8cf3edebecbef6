"""How long a training takes on this machine, measured by running the real step a few times on made-up samples.

Only the step is measured: gradients, clipping, noise and update. Reading images, evaluation and compilation take
additional time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from dpmed.dpsgd.devices import all_devices
from dpmed.dpsgd.step import Step, StepState
from dpmed.planning.advice.made_up import on_made_up_samples
from dpmed.planning.computation import build_step
from dpmed.planning.initial_state import begin_training
from dpmed.planning.microbatch import choose_microbatch, full_microbatch, step_memory
from dpmed.planning.plan import Plan, poisson_microbatch
from dpmed.planning.secrets import draw_secrets
from dpmed.runtime.jit import wait_for

# The minimum of this many, after one that compiles: other programs can only make a step slower.
_REPETITIONS = 3


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """What a step costs on this machine.

    Attributes:
        microbatch: records at once, as many as fit.
        record_seconds: time per record in a microbatch, including padding; smaller microbatches are assumed to cost as
            much per record, though they cost somewhat more. A record with fewer views than the config allows takes
            less: how many there are is private.
        update_seconds: time for noise and update, once per step.
        memory_bytes: memory that a step with this microbatch needs.
    """

    microbatch: int
    record_seconds: float
    update_seconds: float
    memory_bytes: int

    def predict(self, *, batch_size: int, train_size: int, steps: int) -> float:
        """Seconds for a number of steps.

        Args:
            batch_size: expected batch size.
            train_size: N.
            steps: T.
        """
        size = min(poisson_microbatch(batch_size, train_size), self.microbatch)
        # A Poisson batch half fills its last microbatch on average, unless one microbatch nearly always holds it.
        count = 1.0 if size == poisson_microbatch(batch_size, train_size) else batch_size / size + 0.5
        return steps * (count * size * self.record_seconds + self.update_seconds)


def measure_step(plan: Plan) -> StepTime:
    """Measure the step of a private plan; none of its data are read, and the weights are discarded.

    Args:
        plan: a plan with a budget.

    Raises:
        InputError: loss, augmentation and data do not fit together.
    """
    plan = on_made_up_samples(plan)
    begun = begin_training(plan)
    step = build_step(plan, begun.objective, begun.optimizer, secrets=draw_secrets(plan), devices=all_devices())
    state = begun.state
    microbatch = choose_microbatch(plan, step, state)
    return StepTime(
        microbatch=microbatch,
        record_seconds=_accumulating(plan, step, state, microbatch) / microbatch,
        update_seconds=_updating(step, state),
        memory_bytes=step_memory(plan, step, state, microbatch),
    )


def _accumulating(plan: Plan, step: Step, state: StepState, microbatch: int) -> float:
    records, mask = full_microbatch(plan, microbatch)

    def accumulate() -> None:
        wait_for(step.accumulate(state, step.begin(state), records, mask))

    return _least(accumulate)


def _updating(step: Step, state: StepState) -> float:
    """Measured with empty batches: the time for noise and update does not depend on the sum."""
    kept = [state]

    def update() -> None:
        kept[0] = step.update(kept[0], step.begin(kept[0]), draw=0)
        wait_for(kept[0])

    return _least(update)


def _least(work: Callable[[], None]) -> float:
    work()
    found = []
    for _ in range(_REPETITIONS):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return min(found)
