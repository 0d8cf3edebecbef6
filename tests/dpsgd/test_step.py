"""The whole step: against a loop in float64, its noise, and what must make no difference."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpmed.dpsgd.clipping import AdaptiveClipping, AutomaticClipping, FlatClipping, PerLayerClipping
from dpmed.dpsgd.noise import seeded_key
from dpmed.dpsgd.step import PlainStep, PrivateStep, StepState
from tests.oracles import clipped_sum_by_loop

CLIP, EXPECTED, RATE = 0.7, 5, 0.1


def record_loss(trainable, rest, record):
    return jnp.square(jnp.tanh(record["x"] @ trainable["w"]).sum() * rest - record["y"])


def batch_loss(trainable, rest, records, mask):
    losses = jax.vmap(lambda record: record_loss(trainable, rest, record))(records)
    return jnp.sum(jnp.where(mask, losses, jnp.zeros_like(losses))), rest


def problem(count, seed=0):
    rng = np.random.default_rng(seed)
    records = {"x": rng.normal(size=(count, 4)).astype(np.float32), "y": rng.normal(size=count).astype(np.float32)}
    weights = {"w": jnp.asarray(rng.normal(size=(4, 3)).astype(np.float32))}
    return weights, records


def fresh(weights, optimizer, clipping=None):
    copied = jax.tree.map(jnp.array, weights)
    norm = None if clipping is None else clipping.begin()
    return StepState(trainable=copied, rest=jnp.float32(1.5), optimizer=optimizer.init(copied), clipping_norm=norm)


def private_step(noise_multiplier, optimizer, loss=record_loss, clipping=None):
    return PrivateStep(
        loss,
        clipping=clipping or FlatClipping(CLIP),
        noise_multiplier=noise_multiplier,
        expected_batch_size=EXPECTED,
        most_records=100,
        optimizer=optimizer,
        key=seeded_key(3),
    )


def sgd():
    return optax.with_extra_args_support(optax.sgd(RATE))


def run(step, state, records, microbatch, *, draw=0):
    total = step.begin(state)
    count = len(records["y"])
    for start in range(0, count, microbatch):
        real = min(microbatch, count - start)
        piece = {
            name: np.concatenate(
                [leaf[start : start + real], np.zeros((microbatch - real, *leaf.shape[1:]), leaf.dtype)]
            )
            for name, leaf in records.items()
        }
        state, total = step.accumulate(state, total, piece, jnp.arange(microbatch) < real)
    records_seen = int(total.records)
    return step.update(state, total, draw=draw), records_seen


def test_without_noise_a_step_is_the_clipped_mean_by_expected_batch_size():
    weights, records = problem(7)
    state, seen = run(private_step(0.0, sgd()), fresh(weights, sgd()), records, 3)
    per_record = [
        np.asarray(jax.grad(record_loss)(weights, jnp.float32(1.5), {"x": records["x"][i], "y": records["y"][i]})["w"])
        for i in range(7)
    ]
    total = clipped_sum_by_loop([np.stack(per_record)], np.ones(7, bool), CLIP)[0]
    np.testing.assert_allclose(state.trainable["w"], np.asarray(weights["w"]) - RATE * total / EXPECTED, rtol=1e-4)
    assert seen == 7


@pytest.mark.parametrize("microbatch", [1, 2, 7, 10])
def test_the_microbatch_makes_no_difference_beyond_rounding(microbatch):
    weights, records = problem(7)
    reference, _ = run(private_step(1.3, sgd()), fresh(weights, sgd()), records, 4)
    state, _ = run(private_step(1.3, sgd()), fresh(weights, sgd()), records, microbatch)
    np.testing.assert_allclose(state.trainable["w"], reference.trainable["w"], rtol=1e-5, atol=1e-6)


def test_an_empty_batch_is_a_step_of_pure_noise_of_the_right_size():
    # 300 steps of 12 numbers: the standard deviation σC/B within 5 standard errors.
    weights, records = problem(0)
    optimizer, step = sgd(), private_step(2.0, sgd())
    state = fresh(weights, optimizer)
    moves = []
    for draw in range(300):
        before = np.asarray(state.trainable["w"], np.float64)
        state, _ = run(step, state, records, 4, draw=draw)
        moves.append((before - np.asarray(state.trainable["w"], np.float64)) / RATE)
    found, wanted = np.std(np.stack(moves)), 2.0 * CLIP / EXPECTED
    assert abs(found / wanted - 1) < 5 / np.sqrt(2 * 300 * 12)


def test_noise_is_added_once_however_many_microbatches_there_are():
    weights, records = problem(64)
    moved = {}
    for noise in (0.0, 5.0):
        state, _ = run(private_step(noise, sgd()), fresh(weights, sgd()), records, 2)
        moved[noise] = np.asarray(state.trainable["w"], np.float64)
    empty, _ = run(private_step(5.0, sgd()), fresh(weights, sgd()), problem(0)[1], 2)
    pure = np.asarray(empty.trainable["w"], np.float64) - np.asarray(weights["w"], np.float64)
    np.testing.assert_allclose(moved[5.0] - moved[0.0], pure, atol=1e-5)


def test_a_poisoned_record_changes_nothing_and_is_counted():
    weights, records = problem(5)
    clean, _ = run(private_step(0.0, sgd()), fresh(weights, sgd()), {n: v[:4] for n, v in records.items()}, 5)
    records["x"][4] = np.nan
    step, state = private_step(0.0, sgd()), fresh(weights, sgd())
    state, total = step.accumulate(state, step.begin(state), records, jnp.ones(5, bool))
    assert int(total.rejected) == 1
    assert np.isfinite(float(total.loss))
    np.testing.assert_allclose(step.update(state, total, draw=0).trainable["w"], clean.trainable["w"], rtol=1e-6)


def test_the_plain_step_is_the_gradient_of_the_mean():
    weights, records = problem(6)
    state, _ = run(PlainStep(batch_loss, optimizer=sgd()), fresh(weights, sgd()), records, 3)
    gradient = jax.grad(lambda w: batch_loss(w, jnp.float32(1.5), records, jnp.ones(6, bool))[0] / 6)(weights)
    np.testing.assert_allclose(state.trainable["w"], weights["w"] - RATE * gradient["w"], rtol=1e-5)


def test_a_step_is_compiled_once_whatever_the_batch_sizes():
    traces = []

    def loss(trainable, rest, record):
        traces.append(1)
        return record_loss(trainable, rest, record)

    weights, _ = problem(1)
    step, state = private_step(1.0, sgd(), loss), fresh(weights, sgd())
    for draw, count in enumerate([3, 8, 0, 5]):
        state, _ = run(step, state, problem(count)[1], 4, draw=draw)
    assert len(traces) == 1


ADAPTIVE = AdaptiveClipping(clipping_norm=CLIP, quantile=0.5, rate=0.2, count_noise=3.0, expected_batch_size=EXPECTED)


def lengths(weights, records):
    gradients = jax.vmap(lambda record: jax.grad(record_loss)(weights, jnp.float32(1.5), record)["w"])(records)
    return np.linalg.norm(np.asarray(gradients, np.float64).reshape(len(gradients), -1), axis=1)


def states_of(step, weights, counts, microbatch=4, clipping=ADAPTIVE):
    """The states after a few steps with batches of these sizes."""
    state = fresh(weights, sgd(), clipping)
    for draw, count in enumerate(counts):
        state, _ = run(step, state, problem(count, seed=draw)[1], microbatch, draw=draw)
        yield jax.tree.map(np.array, state)


@pytest.mark.parametrize("clipping", [PerLayerClipping(CLIP), AutomaticClipping(CLIP)])
def test_every_kind_has_noise_of_the_clipping_norm(clipping):
    weights, records = problem(0)
    moved = [
        run(private_step(2.0, sgd(), clipping=kind), fresh(weights, sgd()), records, 4)[0].trainable["w"]
        for kind in (clipping, FlatClipping(CLIP))
    ]
    np.testing.assert_array_equal(*moved)


def test_automatic_clipping_in_a_step_is_the_formula():
    weights, records = problem(6)
    step = private_step(0.0, sgd(), clipping=AutomaticClipping(CLIP, stability=0.1))
    state, _ = run(step, fresh(weights, sgd()), records, 4)
    gradients = jax.vmap(lambda record: jax.grad(record_loss)(weights, jnp.float32(1.5), record)["w"])(records)
    factors = CLIP / (lengths(weights, records) + 0.1)
    total = np.tensordot(factors, np.asarray(gradients), axes=1)
    np.testing.assert_allclose(state.trainable["w"], np.asarray(weights["w"]) - RATE * total / EXPECTED, rtol=1e-4)


def test_the_norm_moves_after_the_count_and_padding_does_not_enter_it():
    weights, records = problem(7)
    quiet = AdaptiveClipping(clipping_norm=CLIP, quantile=0.4, rate=0.2, count_noise=1e-6, expected_batch_size=EXPECTED)
    state, _ = run(private_step(0.0, sgd(), clipping=quiet), fresh(weights, sgd(), quiet), records, 5)
    share = np.sum((lengths(weights, records) <= CLIP) - 0.5) / EXPECTED + 0.5
    np.testing.assert_allclose(state.clipping_norm, CLIP * np.exp(-0.2 * (share - 0.4)), rtol=1e-5)


def test_one_record_moves_the_count_by_a_half_even_if_its_gradient_is_not_finite():
    weights, records = problem(6)
    records["x"][4] = np.nan
    step, state = private_step(0.0, sgd(), clipping=ADAPTIVE), fresh(weights, sgd(), ADAPTIVE)

    def surplus(mask):
        return float(step.accumulate(state, step.begin(state), records, jnp.asarray(mask))[1].surplus)

    whole = surplus(np.ones(6, bool))
    for left_out in range(6):
        assert abs(whole - surplus(np.arange(6) != left_out)) == 0.5
    assert whole - surplus(np.arange(6) != 4) == -0.5
    assert surplus(np.zeros(6, bool)) == 0


def test_noise_on_gradients_follows_the_norm_of_the_step_and_leaves_room_for_the_count():
    weights, records = problem(0)
    flat, _ = run(private_step(2.0, sgd()), fresh(weights, sgd()), records, 4)
    state = fresh(weights, sgd(), AdaptiveClipping(**{**vars(ADAPTIVE), "clipping_norm": 3 * CLIP}))
    moved, _ = run(private_step(2.0, sgd(), clipping=ADAPTIVE), state, records, 4)
    pushes = [np.asarray(one.trainable["w"] - weights["w"], np.float64) for one in (flat, moved)]
    np.testing.assert_allclose(pushes[1], 3 / np.sqrt(1 - (2 / 6) ** 2) * pushes[0], rtol=1e-4, atol=1e-6)


def test_noise_on_the_count_has_the_right_size_and_is_not_that_of_the_gradients():
    # 400 empty batches: the standard deviation of the updates within 5 standard errors; no correlation with gradients.
    weights, _ = problem(0)
    states = list(states_of(private_step(1.0, sgd(), clipping=ADAPTIVE), weights, [0] * 400))
    norms = np.log([CLIP, *(float(state.clipping_norm) for state in states)])
    noise = -np.diff(norms) / 0.2 * EXPECTED
    assert abs(np.std(noise) / 3.0 - 1) < 5 / np.sqrt(2 * 400)
    places = np.stack([weights["w"], *(state.trainable["w"] for state in states)]).reshape(401, -1)
    pushes = np.diff(places, axis=0) / np.exp(norms[:-1, None])
    correlations = [np.corrcoef(noise, push)[0, 1] for push in pushes.T]
    assert np.max(np.abs(correlations)) < 5 / np.sqrt(400)


def test_the_microbatch_makes_no_difference_to_the_norm_and_one_key_gives_one_course():
    weights, _ = problem(0)
    counts = [7, 0, 3, 9]
    courses = [
        [
            float(state.clipping_norm)
            for state in states_of(private_step(1.0, sgd(), clipping=ADAPTIVE), weights, counts, m)
        ]
        for m in (4, 4, 1, 9)
    ]
    assert courses[0] == courses[1]
    for course in courses[2:]:
        np.testing.assert_allclose(course, courses[0], rtol=1e-6)
    assert len(set(courses[0])) == 4
