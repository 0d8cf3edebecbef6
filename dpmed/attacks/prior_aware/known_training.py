"""A training as seen by the informed attacker, who knows all records except the candidates, and all weights.

The weights are updated by the config's own private steps over the known records. The target's own influence on them is
left out, since many trials with different targets share one training; no bound rests on how the weights came about.
"""

import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from dpmed.attacks.prior_aware.candidates import clipped_gradients
from dpmed.data.identity import record_keys, seeded_secret
from dpmed.data.loader import Loader, Records
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.dpsgd.noise import NoiseKey
from dpmed.dpsgd.sampling import PoissonSampler
from dpmed.dpsgd.step import PrivateStep, StepState
from dpmed.planning.initial_state import begin_training
from dpmed.planning.microbatch import choose_microbatch
from dpmed.planning.plan import Plan
from dpmed.training.loop import accumulate
from dpmed.training.objective import device_records

Gradients = Float[np.ndarray, "candidate parameter"]


class KnownTraining:
    """The training of a plan, without its candidates.

    Args:
        plan: a plan with a budget.
        candidates: indices of the training records among which the attacker chooses; all others are known.
    """

    def __init__(self, plan: Plan, candidates: Int[np.ndarray, " candidate"]) -> None:
        if plan.budget is None:
            raise ValueError("Expected a plan with a budget.")
        self._plan, self._budget = plan, plan.budget
        begun = begin_training(plan)
        self._objective, self._optimizer, self._initial = begun.objective, begun.optimizer, begun.state
        self._clipping = FlatClipping(self._budget.clipping_norm)
        chosen = set(candidates.tolist())
        known = [samples for number, samples in enumerate(plan.members) if number not in chosen]
        microbatch = choose_microbatch(plan, self.step(1.0, np.random.default_rng(0)), self._initial)
        self._known = self._loader(known, microbatch)
        members = [plan.members[int(number)] for number in candidates]
        self._candidates = self._loader(members, min(microbatch, len(members)))
        self._clipped = jax.jit(self._clip)

    def noise_std(self, noise_multiplier: float) -> float:
        """The standard deviation of the noise on each entry of a step's sum."""
        return noise_multiplier * self._clipping.sensitivity(None)

    def step(self, noise_multiplier: float, generator: np.random.Generator) -> PrivateStep:
        """The training's step; built once per σ, for which it is compiled.

        Args:
            noise_multiplier: σ > 0.
            generator: draws the key of the noise.
        """
        return PrivateStep(
            self._objective.record_loss,
            clipping=self._clipping,
            noise_multiplier=noise_multiplier,
            expected_batch_size=self._budget.expected_batch_size,
            most_records=self._budget.train_size,
            optimizer=self._optimizer,
            key=NoiseKey(generator.integers(1 << 32, size=8, dtype=np.uint32)),
        )

    def steps(
        self, step: PrivateStep, generator: np.random.Generator, *, count: int, first_draw: int = 0
    ) -> Iterator[Gradients]:
        """The candidates' clipped gradients at the weights before each of the first `count` steps.

        Args:
            step: updates the weights.
            generator: draws the seed of the batches.
            count: number of steps.
            first_draw: index of the first draw of noise; other trainings with the same step use other indices.
        """
        seed = int(generator.integers(1 << 31))
        sampler = PoissonSampler(len(self._known.members), self._budget.sampling_rate, "seeded", seed)
        # A copy, because a step donates the buffers of the state that it is given.
        state = jax.tree.map(jnp.array, self._initial)
        batches = self._known.stream(sampler.draw(number) for number in range(count))
        for number, microbatches in enumerate(batches):
            yield self._gradients(state, number)
            if number + 1 == count:
                # No gradient is computed at the final weights.
                return
            state, total = accumulate(step, state, microbatches, number)
            state = step.update(state, total, draw=first_draw + number)

    def time_gradient(self) -> float:
        """Seconds for one record's gradient, without compilation, measured on one microbatch of candidates."""
        numbers = np.arange(min(self._candidates.microbatch, len(self._candidates.members)))
        records = self._candidates.collect(numbers)
        self._one(self._initial, records, 0)
        begun = time.perf_counter()
        self._one(self._initial, records, 0)
        return (time.perf_counter() - begun) / len(records.mask)

    def _loader(self, members: list[Int[np.ndarray, " _"]], microbatch: int) -> Loader:
        # The attacker knows the augmentation too: it comes from the seed.
        secret = seeded_secret(self._plan.config.training.seed)
        keys = record_keys(self._plan.dataset, members, secret=secret)
        return Loader(self._plan.dataset, members, microbatch=microbatch, keys=keys)

    def _gradients(self, state: StepState, number: int) -> Gradients:
        every = np.arange(len(self._candidates.members))
        parts = [self._one(state, records, number)[records.mask] for records in self._candidates.load(every)]
        return np.concatenate(parts)

    def _one(self, state: StepState, records: Records, number: int) -> Float[np.ndarray, "record parameter"]:
        batch = device_records(records, step=number)
        return np.asarray(self._clipped(state.trainable, state.rest, batch, jnp.asarray(records.mask)))

    def _clip(
        self, trainable: PyTree[Array], rest: PyTree[Array], batch: PyTree[Array], mask: Array
    ) -> Float[Array, "record parameter"]:
        def loss(leaves: PyTree[Array], record: PyTree[Array]) -> Float[Array, ""]:
            return self._objective.record_loss(leaves, rest, record)

        return clipped_gradients(loss, trainable, batch, mask=mask, clipping=self._clipping)
