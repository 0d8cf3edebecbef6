"""The computing parts of a training: the config's σ, sampling and clipping; own states; agreement of processes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.config.load import load_config
from dpmed.dpsgd.sampling import PoissonSampler, ShuffledSampler
from dpmed.dpsgd.step import PlainStep, PrivateStep
from dpmed.errors import InputError, RunError
from dpmed.planning import computation as computation_room
from dpmed.planning.computation import build_computation, build_step, effect_of_places, settle_places
from dpmed.planning.initial_state import begin_training
from dpmed.planning.plan import make_plan
from dpmed.planning.secrets import draw_secrets
from dpmed.progress import Silent
from dpmed.runtime.distributed import Processes
from dpmed.training.loop import accumulate

SMALL = [
    "data.limit=120", "training.batch_size=16", "training.epochs=2", "model.width=[4]", "training.ema_decay=0.5",
    "privacy.noise_source=seeded", "training.microbatch=8",
]  # fmt: skip


def plan_of(*settings):
    return make_plan(load_config("quickstart", [*SMALL, *settings]).config, Silent())


@pytest.fixture(scope="module")
def plan():
    return plan_of()


@pytest.fixture(scope="module")
def computation(plan):
    return build_computation(plan, draw_secrets(plan))


def test_the_sampler_has_the_accounted_rate(plan, computation):
    assert isinstance(computation.sampler, PoissonSampler) and isinstance(computation.step, PrivateStep)
    assert computation.sampler.sampling_rate == plan.budget.sampling_rate
    assert computation.sampler.population == plan.train_size


def test_without_privacy_batches_are_whole_and_steps_plain():
    plain = plan_of("privacy=")
    found = build_computation(plain, draw_secrets(plain))
    assert isinstance(found.sampler, ShuffledSampler) and isinstance(found.step, PlainStep)
    assert len(found.sampler.draw(0)) == 16
    assert found.parts(16).epsilon is None


def test_a_state_that_is_used_up_leaves_the_initial_one_whole(computation):
    run = computation.begin(8)
    jax.tree.map(lambda leaf: leaf.delete(), run.state.trainable)
    again = computation.begin(8)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(again.state.trainable))
    assert all(
        np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (again.ema, again.state.trainable)), strict=True)
    )
    assert (again.microbatch, again.draws, again.best) == (8, 0, None)


def test_the_noise_of_a_step_has_the_accounted_size():
    # Nothing is drawn, so only noise moves the weights: σ·C divided by the expected batch size.
    plan = plan_of("model.width=[200]", "optimizer={name = 'sgd', learning_rate = 1.0}", "training.ema_decay=")
    computation = build_computation(plan, draw_secrets(plan))
    state = computation.begin(8).state
    before = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(state.trainable)])
    state, total = accumulate(computation.step, state, iter(()), 0)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        moved = computation.step.update(state, total, draw=0)
    noise = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(moved.trainable)]) - before
    wanted = plan.budget.noise_multiplier * plan.budget.clipping_norm / 16
    # The relative standard error of a standard deviation of n numbers is 1/sqrt(2n); five of these are allowed.
    assert abs(noise.std() / wanted - 1) < 5 / np.sqrt(2 * noise.size)


def test_a_step_may_take_another_loss_and_clips_it_alike(plan, computation):
    begun = begin_training(plan)

    def canaries(trainable, rest, record):
        return 1e6 * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(trainable))

    step = build_step(plan, begun.objective, begun.optimizer, secrets=draw_secrets(plan), record_loss=canaries)
    audited = replace(computation, step=step)
    run = audited.begin(8)
    _, total = accumulate(step, run.state, next(audited.loader(8).stream([np.arange(5)])), 0)
    gradient = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(total.gradients)])
    assert np.linalg.norm(gradient) == pytest.approx(5 * plan.budget.clipping_norm, rel=1e-4)


def test_places_of_a_shipped_network_are_alike_and_nothing_is_used_up(computation):
    assert effect_of_places(computation, 8) == 0.0
    assert computation.begin(8).step == 0
    plain = plan_of("privacy=")
    assert effect_of_places(build_computation(plain, draw_secrets(plain)), 16) == 0.0


def test_places_that_do_not_fit_into_memory_are_measured_with_the_next_smaller_microbatch(monkeypatch):
    plan = plan_of("training.microbatch=auto")
    found = build_computation(plan, draw_secrets(plan))
    asked = []

    def short_of_memory(step, state, records):
        asked.append(len(records["step"]))
        if len(asked) == 1:
            raise MemoryError
        return 1e-8

    monkeypatch.setattr(computation_room, "place_effect", short_of_memory)
    assert effect_of_places(found, 16) == 1e-8
    assert asked[0] == 16 and asked[1] == next(size for size in plan.microbatches if 2 * size <= 16)


def test_what_was_measured_with_a_smaller_microbatch_counts_for_as_many_more_of_them(monkeypatch):
    plan = plan_of("training.microbatch=auto", "training.batch_size=64")

    def for_eight(step, state, records):
        if len(records["step"]) > 8:
            raise MemoryError
        return 3e-5 * (len(records["step"]) > 1)

    monkeypatch.setattr(computation_room, "place_effect", for_eight)
    # Eight microbatches move the sum by 2.4e-4.
    assert settle_places(build_computation(plan, draw_secrets(plan)), 96) == (1, 0.0)


@pytest.mark.parametrize(("effect", "wanted"), [(1e-3, (1, 0.0)), (1e-8, (16, 1e-8)), (0.0, (16, 0.0))])
def test_records_are_computed_one_at_a_time_where_places_matter(monkeypatch, effect, wanted):
    monkeypatch.setattr(
        computation_room, "place_effect", lambda step, state, records: effect * (len(records["step"]) > 1)
    )
    plan = plan_of("training.microbatch=auto")
    assert settle_places(build_computation(plan, draw_secrets(plan)), 16) == wanted
    # What the user has chosen stays, and so does what was found.
    plan = plan_of("training.microbatch=16")
    assert settle_places(build_computation(plan, draw_secrets(plan)), 16) == (16, effect)


def test_epsilon_in_the_loop_is_that_of_the_budget(plan, computation):
    parts = computation.parts(8)
    assert parts.epsilon(plan.steps) == plan.budget.epsilon
    assert (parts.steps, parts.save_every, parts.loader.microbatch) == (plan.steps, plan.steps_per_checkpoint, 8)


def test_a_run_is_over_when_its_draws_are_spent_or_it_was_stopped(plan, computation):
    run = computation.begin(8)
    assert not computation.is_over(run)
    assert computation.is_over(replace(run, draws=plan.steps))
    assert computation.is_over(replace(run, watched={"stopped": 1.0}))


def test_final_weights_are_the_best_or_the_averaged_or_the_last(computation):
    run = computation.begin(8)
    ema = jax.tree.map(lambda leaf: leaf + 1, run.ema)
    best = jax.tree.map(lambda leaf: leaf + 2, run.ema), run.state.rest
    assert computation.final_weights(replace(run, ema=ema))[0] is ema
    assert computation.final_weights(replace(run, ema=ema, best=best)) is best
    assert computation.final_weights(replace(run, ema=None))[0] is run.state.trainable


def test_out_of_memory_leads_to_the_next_smaller_microbatch_of_the_plan():
    plan = plan_of("training.microbatch=auto")
    found = build_computation(plan, draw_secrets(plan))
    largest = plan.microbatches[0]
    assert found.smaller_microbatch(largest) == max(size for size in plan.microbatches if 2 * size <= largest)
    with pytest.raises(RunError, match="no smaller microbatch"):
        found.smaller_microbatch(1)
    with pytest.raises(RunError, match="in one process"):
        replace(found, processes=Processes(2, 0)).smaller_microbatch(largest)


def test_each_process_loads_its_share(computation):
    second = replace(computation, processes=Processes(2, 1)).loader(8)
    assert second.share == (1, 2)
    np.testing.assert_array_equal(second.keys, computation.record_keys)


def test_batch_norm_on_several_processes_needs_whole_microbatches(monkeypatch):
    network = ["model.name=resnet9", "model.channels=[2,2,2,2]", "model.width=", "model.activation="]
    plan = plan_of("privacy=", "training.microbatch=auto", *network, 'model.normalisation="batch"')
    found = replace(build_computation(plan, draw_secrets(plan)), processes=Processes(2, 0))
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    found.loader(16)
    with pytest.raises(InputError, match="not a multiple of the 2 devices") as caught:
        found.loader(3)
    assert caught.value.where == "training.batch_size"
