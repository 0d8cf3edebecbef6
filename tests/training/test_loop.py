"""The loop: what it waits for, and that it repeats the same batches in smaller pieces if memory runs out."""

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax._src.array import ArrayImpl

from dpmed.data.base import Info
from dpmed.data.loader import Loader, view_bounds
from dpmed.data.storage.stored import ArrayDataset, Listing
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.dpsgd.noise import seeded_key
from dpmed.dpsgd.sampling import PoissonSampler
from dpmed.dpsgd.step import PrivateStep, StepState
from dpmed.errors import RunError
from dpmed.progress import Silent
from dpmed.training.loop import Hooks, Parts, RunState, accumulate, train
from dpmed.training.objective import in_all_shapes

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
    """A device with room for a limited number of records."""

    step: PrivateStep
    room: int

    def prepare(self, state, *, draw):
        self.step.prepare(state, draw=draw)

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
    """A sampler that never draws the same batch again, like one that uses the operating system's entropy."""

    def __init__(self):
        self.calls = []

    def draw(self, number):
        self.calls.append(number)
        return PoissonSampler(RECORDS, 0.3, "seeded", seed=5).draw(1000 * self.calls.count(number) + number)


def loss(trainable, rest, record):
    del rest
    value = jnp.tanh(record["inputs"][0] @ trainable["w"]).sum() - record["targets"][0].astype(jnp.float32)
    return jnp.square(value)


def run(wrap, *, microbatch, sampler=None, views=None, **hooked):
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
        return Loader(loader.dataset, loader.members, microbatch=sizes[-1], views=views)

    parts = Parts(
        step=wrap(step),
        sampler=sampler or Remembering(),
        loader=Loader(points(), [np.array([number]) for number in range(RECORDS)], microbatch=microbatch, views=views),
        epsilon=None,
        evaluate=lambda run: {"loss": 0.0},
        steps=STEPS,
        steps_per_epoch=3,
        evaluate_every=3,
        save_every=3,
        ema_decay=None,
    )
    hooks = Hooks(
        before_draw=hooked.get("before_draw", draws.append),
        save=hooked.get("save", lambda run: None),
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
    # No more draws of batches or noise than with enough memory.
    assert draws == list(range(1, STEPS + 1))
    assert sorted(sampler.calls) == list(range(STEPS))
    assert last.records == roomy.records


class CrampedByViews(Cramped):
    """A device with room for a limited number of views."""

    def accumulate(self, state, total, records, mask):
        if records["weights"].size > self.room:
            raise self.error()
        return self.step.accumulate(state, total, records, mask)


def test_every_shape_is_tried_before_the_first_step_whoever_has_been_drawn():
    # All records have one view, and 32 of them fit. A record with eight views, if there were one, must not be what
    # makes microbatches smaller: the others' margin for rounding would follow from it.
    sampler = Remembering()
    found, sizes, draws, _ = run(
        lambda step: CrampedByViews(step, room=32), microbatch=32, sampler=sampler, views=(1, 2, 8)
    )
    assert sizes == [32, 16, 8, 4]
    wanted, _, _, _ = run(lambda step: step, microbatch=4, views=(1, 2, 8))
    # What was tried leaves nothing behind.
    np.testing.assert_array_equal(found, wanted)
    assert draws == list(range(1, STEPS + 1))
    assert sorted(sampler.calls) == list(range(STEPS))


def test_another_error_is_not_taken_for_want_of_memory():
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        run(lambda step: Broken(step, room=5), microbatch=32)


COUNTS = ("loss", "records", "rejected", "clipped")


@dataclass
class Watching:
    """A step that logs the loop's calls, and which of its counts the loop waits for."""

    step: PrivateStep
    patch: pytest.MonkeyPatch
    events: list = field(default_factory=list)
    number: int = -1
    piece: int = 0
    names: dict = field(default_factory=dict)

    def __post_init__(self):
        for method, event in (("copy_to_host_async", "fetch"), *((one, "read") for one in READINGS)):
            self.patch.setattr(ArrayImpl, method, self.noting(event, getattr(ArrayImpl, method)))
        ready = jax.block_until_ready
        self.patch.setattr(jax, "block_until_ready", lambda tree: [self.note("wait", tree), ready(tree)][1])

    def noting(self, event, method):
        def noted(array, *arguments, **options):
            self.note(event, array)
            return method(array, *arguments, **options)

        return noted

    def note(self, event, tree):
        for leaf in jax.tree.leaves(tree):
            # By identity; named arrays are kept alive, so that no other array reuses the identity of one.
            name, _ = self.names.get(id(leaf), (None, None))
            if name is not None:
                self.events.append(f"{event} {name}")

    def prepare(self, state, *, draw):
        self.number, self.piece = draw, 0
        self.events.append(f"prepare {draw}")
        self.step.prepare(state, draw=draw)

    def begin(self, state):
        return self.step.begin(state)

    def accumulate(self, state, total, records, mask):
        self.events.append(f"dispatch {self.number}.{self.piece}")
        state, total = self.step.accumulate(state, total, records, mask)
        for name in COUNTS:
            array = getattr(total, name)
            self.names[id(array)] = (f"{name} {self.number}.{self.piece}", array)
        self.piece += 1
        return state, total

    def update(self, state, total, *, draw):
        self.events.append(f"update {draw}")
        return self.step.update(state, total, draw=draw)

    def memory(self, state, records, mask):
        raise NotImplementedError


READINGS = ("item", "__array__", "__int__", "__float__", "__bool__", "__index__", "tolist")


def watched_run(patch, microbatch, kind=Watching):
    """The events of a run in order, including journal and saving; its weights, and its last state."""
    events = []
    weights, _, _, last = run(
        lambda step: kind(step, patch, events),
        microbatch=microbatch,
        before_draw=lambda draws: events.append(f"journal {draws - 1}"),
        save=lambda one: events.append(f"save {one.step} {one.records} {one.counts.records}"),
    )
    return events, weights, last


def last_pieces(events):
    """For each step, the number of its last microbatch."""
    dispatched = [one.split()[1].split(".") for one in events if one.startswith("dispatch")]
    return {int(number): int(piece) for number, piece in dispatched}


@pytest.mark.parametrize("microbatch", [RECORDS, 8])
def test_a_steps_counts_are_read_when_the_next_step_is_under_way_and_all_before_anything_is_saved(
    monkeypatch, microbatch
):
    events, _, last = watched_run(monkeypatch, microbatch)
    for number, piece in last_pieces(events).items():
        read = events.index(f"read loss {number}.{piece}")
        assert events.index(f"fetch loss {number}.{piece}") < read
        # Every three steps there are an evaluation and a checkpoint, before which everything has been read.
        if (number + 1) % 3:
            assert events.index(f"update {number + 1}") < read
        else:
            assert read < next(place for place, one in enumerate(events) if one.startswith(f"save {number + 1} "))
    # Every count of every step is read once, and nothing else.
    assert sum(one.startswith("read") for one in events) == len(COUNTS) * STEPS
    saved = [one for one in events if one.startswith("save")]
    assert saved[-1].startswith(f"save {STEPS} {last.records} ")


@pytest.mark.parametrize("microbatch", [RECORDS, 8])
def test_a_draw_is_on_record_before_its_noise_and_its_gradients(monkeypatch, microbatch):
    events, _, _ = watched_run(monkeypatch, microbatch)
    for number in range(STEPS):
        order = [f"journal {number}", f"prepare {number}", f"dispatch {number}.0", f"update {number}"]
        places = [events.index(one) for one in order]
        assert places == sorted(places)
        # One draw at a time: the previous step's has been used.
        assert number == 0 or events.index(f"update {number - 1}") < places[0]


def test_two_microbatches_are_under_way_and_the_loop_waits_for_nothing_else(monkeypatch):
    with monkeypatch.context() as patch:
        events, weights, _ = watched_run(patch, 8)
    waits = [(place, one.split()[1:]) for place, one in enumerate(events) if one.startswith("wait")]
    pieces = last_pieces(events)
    assert any(piece >= 2 for piece in pieces.values())
    # In the first step the loop waits once for the whole sum, since its memory is unknown.
    whole = [name for _, (name, at) in waits if at == f"0.{pieces[0]}"]
    assert sorted(whole) == sorted(COUNTS)
    others = [(place, name, at) for place, (name, at) in waits if at != f"0.{pieces[0]}"]
    assert len(others) == sum(max(0, piece - 1) for piece in pieces.values())
    for place, name, at in others:
        number, piece = map(int, at.split("."))
        assert name == "records"
        assert events[place + 1] == f"dispatch {number}.{piece + 2}"
    np.testing.assert_array_equal(weights, run(lambda step: step, microbatch=8)[0])


class LateError(Watching):
    """A device that reports a lack of memory only when a sum is read, after the update."""

    def note(self, event, tree):
        super().note(event, tree)
        if self.number == 2 and event == "read":
            raise Cramped.error()


def test_memory_that_runs_out_after_the_update_ends_the_run_with_a_remedy(monkeypatch):
    with pytest.raises(RunError, match="out of memory") as found:
        watched_run(monkeypatch, RECORDS, LateError)
    assert "Resume" in found.value.remedy


def mean_loss(trainable, rest, record):
    """Of all views of a record, by their weights."""
    del rest
    values = jnp.tanh(record["inputs"] @ trainable["w"]).sum(axis=1) - record["targets"].astype(jnp.float32)
    return jnp.sum(jnp.square(values) * record["weights"])


def test_records_of_several_shapes_add_up_to_what_a_loop_does_with_fewer_views():
    sizes = np.array([1, 7, 2, 1, 3, 1, 8, 5, 2, 1])
    ends = np.cumsum(sizes)
    members = [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    weights = {"w": jnp.asarray(np.random.default_rng(2).normal(size=(3, 2)).astype(np.float32))}
    data, sums, views_computed = points(), [], []
    for views in (view_bounds(8), (8,)):
        step = PrivateStep(
            mean_loss,
            clipping=FlatClipping(0.5),
            noise_multiplier=1.0,
            expected_batch_size=5,
            most_records=10,
            optimizer=optax.with_extra_args_support(optax.sgd(0.1)),
            key=seeded_key(1),
            shapes=partial(in_all_shapes, views=views),
        )
        state = StepState(trainable=weights, rest=None, optimizer=None)
        loader = Loader(data, members, microbatch=2, views=views)
        microbatches = list(loader.load(np.arange(10)))
        _, total = accumulate(step, state, iter(microbatches), 0)
        assert int(total.records) == 10
        sums.append(np.asarray(total.gradients["w"]))
        views_computed.append(sum(records.weights.size for records in microbatches))
    by_loop = np.zeros((3, 2))
    for samples in members:
        record = {
            "inputs": data.inputs[samples],
            "targets": data.targets[samples],
            "weights": np.full(len(samples), 1 / len(samples), np.float32),
        }
        gradient = np.asarray(jax.grad(mean_loss)(weights, None, record)["w"], np.float64)
        by_loop += gradient * min(1.0, 0.5 / np.linalg.norm(gradient))
    for found in sums:
        np.testing.assert_allclose(found, by_loop, rtol=1e-5, atol=1e-6)
    # In twos: four records with one view, two with two, and four with more, padded to 1, 2 and 8 views; or all to 8.
    assert views_computed == [4 * 1 + 2 * 2 + 4 * 8, 10 * 8]
