"""The loop when memory runs out: the same batches in smaller pieces, and the same weights."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpmed.data.base import Info
from dpmed.data.loader import Loader
from dpmed.data.storage.stored import ArrayDataset, Listing
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.dpsgd.noise import seeded_key
from dpmed.dpsgd.sampling import PoissonSampler
from dpmed.dpsgd.step import PrivateStep, StepState
from dpmed.progress import Silent
from dpmed.training.loop import Hooks, Parts, RunState, train

RECORDS, STEPS = 60, 6


INFO = Info(
    name="points",
    task="classification",
    input_shape=(3,),
    class_names=("a", "b"),
    scale=1.0,
    mean=(0.0,),
    std=(1.0,),
    unit="image",
)


def points():
    inputs = np.random.default_rng(0).normal(size=(RECORDS, 3)).astype(np.float32)
    targets = (np.arange(RECORDS) % 2).astype(np.int32)
    groups = tuple(str(number) for number in range(RECORDS))
    return ArrayDataset(INFO, Listing(labels=targets, groups=groups), inputs=inputs, targets=targets)


@dataclass
class Cramped:
    """A device with room for so many records."""

    step: PrivateStep
    room: int

    def begin(self, state):
        return self.step.begin(state)

    def accumulate(self, state, total, records, mask):
        if len(mask) > self.room:
            raise self.error()
        return self.step.accumulate(state, total, records, mask)

    def update(self, state, total, *, draw):
        return self.step.update(state, total, draw=draw)

    def memory(self, state, records, mask):
        return self.step.memory(state, records, mask)

    @staticmethod
    def error():
        return jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 10 bytes.")


class Broken(Cramped):
    @staticmethod
    def error():
        return jax.errors.JaxRuntimeError("INTERNAL: something else")


class Remembering:
    """A sampler that never draws the same batch again, as one by the operating system's entropy."""

    def __init__(self):
        self.calls = []

    def draw(self, number):
        self.calls.append(number)
        return PoissonSampler(RECORDS, 0.3, "seeded", seed=5).draw(1000 * self.calls.count(number) + number)


def loss(trainable, rest, record):
    del rest
    value = jnp.tanh(record["inputs"][0] @ trainable["w"]).sum() - record["targets"][0].astype(jnp.float32)
    return jnp.square(value)


def run(wrap, *, microbatch, sampler=None):
    optimizer = optax.with_extra_args_support(optax.sgd(0.1))
    step = PrivateStep(
        loss,
        clipping=FlatClipping(0.5),
        noise_multiplier=0.7,
        expected_batch_size=18,
        most_records=1000,
        optimizer=optimizer,
        key=seeded_key(1),
    )
    weights = {"w": jnp.ones((3, 2), jnp.float32)}
    state = StepState(trainable=weights, rest=None, optimizer=optimizer.init(weights))
    sizes, draws = [microbatch], []

    def smaller(loader):
        sizes.append(loader.microbatch // 2)
        return Loader(loader.dataset, loader.members, microbatch=sizes[-1])

    parts = Parts(
        step=wrap(step),
        sampler=sampler or Remembering(),
        loader=Loader(points(), [np.array([number]) for number in range(RECORDS)], microbatch=microbatch),
        epsilon=None,
        evaluate=lambda state, ema: {"loss": 0.0},
        steps=STEPS,
        steps_per_epoch=3,
        evaluate_every=3,
        save_every=3,
        ema_decay=None,
    )
    hooks = Hooks(
        before_draw=draws.append,
        save=lambda run: None,
        after_evaluation=lambda run, scores: (run, False),
        should_stop=lambda: False,
        after_running_out=smaller,
        progress=Silent(),
    )
    outcome = train(parts, RunState(state=state, ema=None, best=None, step=0, draws=0, microbatch=microbatch), hooks)
    assert outcome.finished
    return np.asarray(outcome.run.state.trainable["w"]), sizes, draws, outcome.run


def test_out_of_memory_halves_the_microbatch_and_repeats_the_same_batch():
    sampler = Remembering()
    found, sizes, draws, last = run(lambda step: Cramped(step, room=5), microbatch=32, sampler=sampler)
    wanted, _, _, roomy = run(lambda step: step, microbatch=32)
    assert sizes == [32, 16, 8, 4]
    assert (last.microbatch, roomy.microbatch) == (4, 32)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    # Not one draw more, of batches or noise, than with memory enough.
    assert draws == list(range(1, STEPS + 1))
    assert sorted(sampler.calls) == list(range(STEPS))
    assert last.records == roomy.records


def test_another_error_is_not_taken_for_want_of_memory():
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        run(lambda step: Broken(step, room=5), microbatch=32)
