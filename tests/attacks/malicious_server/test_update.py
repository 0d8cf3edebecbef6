"""The lean update against the plain one: all of it materialised, differentiated sample by sample, clipped, summed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.attacks.malicious_server.blocks import Activations, make_block, pattern
from dpmed.attacks.malicious_server.update import Client, Responses, Update, clipped_update
from dpmed.dpsgd.clipped_sum import clip_and_sum
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.dpsgd.gradients import per_sample_gradients

SHAPE = (4, 4, 1)
VALUES = 16
ATTACKS = ("trap-weights", "imprint", "peeling")
# So small that activations change nothing, so large that float32 keeps their digits.
SHRINK = 1e-9


def images_of(count, seed=0, values=VALUES):
    return np.random.default_rng(seed).standard_normal((count, values)).astype(np.float32)


def model_loss(weights, image, target):
    hidden = jnp.tanh(weights["first"] @ image.reshape(-1))
    logits = weights["second"] @ hidden
    return jax.nn.logsumexp(logits) - logits[target]


def model_weights(seed=3):
    first, second = jax.random.split(jax.random.key(seed))
    return {
        "first": 0.5 * jax.random.normal(first, (6, VALUES), jnp.float32),
        "second": jax.random.normal(second, (3, 6), jnp.float32),
    }


def materialised(block):
    """Weights of every row over the features, and the width at which its activation is cut off."""
    if block.attack == "trap-weights":
        rows = np.concatenate([part for _, part in block.trap_rows(VALUES)])
        lower, width = -block.biases, np.full(block.rows, np.inf)
    else:
        rows = np.repeat(block.functional, block.edges.shape[1], axis=0)
        lower = np.maximum(block.edges, -20.0).ravel()
        upper = np.concatenate([block.edges[:, 1:], np.full((len(block.edges), 1), np.inf)], axis=1).ravel()
        width = upper - lower
    # The bias stands at the constant; checksum and fingerprint get no weight, only gradients.
    unweighted = np.zeros((block.rows, 1 + len(block.fingerprint)))
    weights = np.concatenate([rows, -lower[:, None] / block.length, unweighted], axis=1)
    return (SHRINK * weights).astype(np.float32), (SHRINK * width).astype(np.float32)


def plain_update(block, images, targets, *, signs, scale, clipping_norm):
    weights, width = materialised(block)
    activations = np.concatenate([images, block.marks(images)], axis=1)

    def loss(trainable, record):
        activations = jnp.clip(trainable["block"] @ record["activations"], 0.0, width)
        image = record["image"].reshape(SHAPE) + scale * jnp.mean(activations) * signs
        return model_loss(trainable["model"], image, record["target"])

    trainable = {"block": jnp.asarray(weights), "model": model_weights()}
    records = {"image": jnp.asarray(images), "activations": jnp.asarray(activations), "target": jnp.asarray(targets)}
    _, gradients = per_sample_gradients(loss, trainable, records)
    if clipping_norm is None:
        return np.asarray(gradients["block"].sum(axis=0)), None
    clipped = clip_and_sum(gradients, jnp.ones(len(images), bool), clipping=FlatClipping(clipping_norm))
    return np.asarray(clipped.gradients["block"]), int(clipped.clipped)


def respond(images, targets, *, microbatch=5):
    signs = pattern(VALUES, seed=0).reshape(SHAPE)
    client = Client(model_loss, sign_pattern=signs, microbatch=microbatch)
    done = []
    responses = client.respond(model_weights(), images, targets, advance=done.append)
    assert sum(done) == len(images)
    return responses, signs


def lean_update(block, images, targets, *, scale, clipping_norm, microbatch=5):
    responses, signs = respond(images, targets, microbatch=microbatch)
    update = clipped_update(images, block.activate(images), responses, scale=scale, clipping_norm=clipping_norm)
    return update.send(noise_std=0.0, generator=np.random.default_rng(0)), responses, signs


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("clipping_norm", [None, 0.05, 1.0, 1e6])
def test_the_lean_update_is_the_plain_one(attack, clipping_norm):
    block = make_block(attack, images_of(60, seed=1), rows=24, batch_size=13, seed=7)
    images, targets = images_of(13), np.arange(13, dtype=np.int32) % 3
    lean, _, signs = lean_update(block, images, targets, scale=30.0, clipping_norm=clipping_norm)
    plain, clipped = plain_update(block, images, targets, signs=signs, scale=30.0, clipping_norm=clipping_norm)
    assert clipped is None or clipped == {0.05: 13, 1e6: 0}.get(clipping_norm, clipped)
    size = np.abs(plain).max()
    assert size > 0
    np.testing.assert_allclose(lean, plain, atol=2e-5 * size)


def test_the_norm_of_the_model_behind_counts():
    # The block's scale is so small that only the model's own gradient is clipped; the block's share shrinks with it.
    block = make_block("imprint", images_of(60, seed=1), rows=12, batch_size=9, seed=7)
    images, targets = images_of(9), np.zeros(9, np.int32)
    free, responses, _ = lean_update(block, images, targets, scale=1e-6, clipping_norm=None)
    clipped, _, _ = lean_update(block, images, targets, scale=1e-6, clipping_norm=1e-3)
    assert (responses.norms > 0.01).all()
    assert np.linalg.norm(clipped) < 0.2 * np.linalg.norm(free)


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_image_moves_the_update_by_more_than_the_clipping_norm(attack):
    block = make_block(attack, images_of(60, seed=1), rows=24, batch_size=8, seed=7)
    images, targets = images_of(8), np.zeros(8, np.int32)
    whole, _, _ = lean_update(block, images, targets, scale=1e4, clipping_norm=0.7)
    for number in range(8):
        others = np.arange(8) != number
        less, _, _ = lean_update(block, images[others], targets[others], scale=1e4, clipping_norm=0.7)
        moved = np.linalg.norm((whole - less).astype(np.float64))
        assert moved <= 0.7
        assert moved > 0.6 or attack == "trap-weights"  # where no row may fire


@pytest.mark.parametrize("microbatch", [1, 4, 50])
def test_the_microbatch_does_not_matter(microbatch):
    block = make_block("imprint", images_of(60, seed=1), rows=12, batch_size=9, seed=7)
    images, targets = images_of(9), np.arange(9, dtype=np.int32) % 3
    expected, _, _ = lean_update(block, images, targets, scale=3.0, clipping_norm=0.5, microbatch=9)
    found, _, _ = lean_update(block, images, targets, scale=3.0, clipping_norm=0.5, microbatch=microbatch)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_a_gradient_that_is_not_finite_counts_as_zero():
    block = make_block("imprint", images_of(60, seed=1), rows=12, batch_size=3, seed=7)
    images = images_of(3)
    for slope, norm in ((np.nan, 0.0), (np.inf, 0.0), (1.0, np.nan), (1.0, np.inf)):
        responses = Responses(slopes=np.array([1.0, slope, 1.0]), norms=np.array([0.0, norm, 0.0]))
        for clipping_norm in (0.5, None):
            update = clipped_update(images, block.activate(images), responses, scale=1.0, clipping_norm=clipping_norm)
            assert update.weights[1] == 0 and (update.weights[[0, 2]] > 0).all()


def test_noise_has_the_standard_deviation_of_the_level_and_no_pattern():
    images = images_of(2, values=500)
    activations = Activations(rows=400, firing=[np.array([0]), np.array([1])], marks=np.ones((2, 7), np.float32))
    update = Update(images=images, activations=activations, weights=np.zeros(2), sensitivity=1.0)
    noise = update.send(noise_std=3.0, generator=np.random.default_rng(5)).astype(np.float64)
    count = noise.size
    assert abs(noise.mean()) < 5 * 3 / np.sqrt(count)
    assert abs(noise.std() - 3.0) < 5 * 3 / np.sqrt(2 * count)
    # Rows and columns are independent: squared correlations of neighbours are those of white noise.
    assert abs((noise[1:] * noise[:-1]).mean()) < 5 * 9 / np.sqrt(count)
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 5 * 9 / np.sqrt(count)
    again = update.send(noise_std=3.0, generator=np.random.default_rng(6))
    assert np.abs(np.corrcoef(again.ravel(), noise.ravel())[0, 1]) < 5 / np.sqrt(count)


def test_noise_is_added_to_the_noiseless_sum():
    block = make_block("peeling", images_of(60, seed=1), rows=24, batch_size=5, seed=7)
    images = images_of(5)
    update = Update(images=images, activations=block.activate(images), weights=np.full(5, 1e3), sensitivity=1.0)
    clean = update.send(noise_std=0.0, generator=np.random.default_rng(0))
    noisy = update.send(noise_std=2.0, generator=np.random.default_rng(0))
    assert abs((noisy - clean).std() - 2.0) < 0.2
