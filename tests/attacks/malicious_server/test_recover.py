"""The server's side: planted images come back, mixtures do not pass for images, noise is told from signal."""

import numpy as np
import pytest

from dpmed.attacks.malicious_server.blocks import Activations, make_block
from dpmed.attacks.malicious_server.recover import recover
from dpmed.attacks.malicious_server.update import Update
from dpmed.config.data import DigitsData, PatchesData
from dpmed.data.build import build_dataset
from dpmed.matching.ssim import pairwise_ssim
from dpmed.progress import Silent

VALUES = 100


def images_of(count, seed, values=VALUES):
    random = np.random.default_rng(seed)
    steps = np.cumsum(random.standard_normal((count, values)), axis=1) / np.sqrt(values)
    return (steps + 0.3 * random.standard_normal((count, values))).astype(np.float32)


def block_of(attack, count, seed=1):
    return make_block(attack, images_of(300, 50), rows=2 * count, batch_size=count, seed=seed)


def sent_by(block, images, weights, *, noise_std=0.0, seed=0):
    update = Update(images=images, activations=block.activate(images), weights=weights, sensitivity=1.0)
    return update.send(noise_std=noise_std, generator=np.random.default_rng(seed))


def errors(found, originals):
    """Mean squared error of the nearest recovered image, for each original."""
    images = found.images()
    return np.array([np.square(images - one).mean(axis=1).min() for one in originals])


def random_weights(count, seed=0):
    return np.random.default_rng(seed).standard_normal(count)


@pytest.mark.parametrize("attack", ["imprint", "peeling"])
def test_a_single_image_comes_back_to_the_last_digits(attack):
    block = make_block(attack, images_of(300, 50), rows=10, batch_size=1, seed=1)
    image = images_of(1, 3)
    found = recover(block, sent_by(block, image, np.array([-0.37])), noise_std=0.0, batch_size=1)
    assert found.single == 1 and len(found) == 1
    assert errors(found, image).max() < 1e-10


@pytest.mark.parametrize("count", [12, 64, 300])
def test_peeling_recovers_all_of_a_batch_whatever_the_weights(count):
    block = block_of("peeling", count)
    images = images_of(count, 3)
    found = recover(block, sent_by(block, images, random_weights(count)), noise_std=0.0, batch_size=count)
    # Weights a thousandth of the largest drown in its rounding now and then.
    assert (errors(found, images) < 1e-6).mean() >= 0.98
    assert 0.98 * count <= found.single <= 1.02 * count


def test_imprint_recovers_exactly_the_images_that_are_alone():
    block, images = block_of("imprint", 80), images_of(80, 3)
    bins = np.concatenate(block.firing(images))
    alone = np.bincount(bins, minlength=block.rows)[bins] == 1
    found = recover(block, sent_by(block, images, random_weights(80)), noise_std=0.0, batch_size=1)
    assert found.single == alone.sum() and 0.4 < alone.mean() < 0.8
    assert (errors(found, images[alone]) < 1e-8).all() and (errors(found, images[~alone]) > 1e-3).all()


def test_trap_weights_recover_the_images_for_which_some_row_fires_alone():
    block, images = block_of("trap-weights", 60), images_of(60, 3)
    firing = block.firing(images)
    load = np.bincount(np.concatenate(firing), minlength=block.rows)
    alone = np.array([(load[rows] == 1).any() for rows in firing])
    found = recover(block, sent_by(block, images, np.ones(60)), noise_std=0.0, batch_size=1)
    assert alone.sum() > 5
    assert (errors(found, images[alone]) < 1e-8).all() and (errors(found, images[~alone]) > 1e-3).all()


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, -1.0), (1.0, 0.1), (0.3, -0.2)])
@pytest.mark.parametrize("noise_std", [0.0, 1e-4, 1e-2])
def test_a_mixture_does_not_pass_for_an_image(weights, noise_std):
    block, images = block_of("imprint", 20), images_of(2, 3)
    firing = [np.array([4]), np.array([4])]
    activations = Activations(rows=block.rows, firing=firing, marks=block.marks(images))
    update = Update(images=images, activations=activations, weights=np.array(weights), sensitivity=1.0)
    rows = update.send(noise_std=noise_std, generator=np.random.default_rng(1))
    found = recover(block, rows, noise_std=noise_std, batch_size=1)
    assert found.single == 0


def test_noise_alone_holds_no_image():
    for attack in ("trap-weights", "imprint", "peeling"):
        block = block_of(attack, 100)
        rows = sent_by(block, images_of(1, 3), np.zeros(1), noise_std=1.0)
        found = recover(block, rows, noise_std=1.0, batch_size=100)
        assert found.single == 0 and len(found) == 100  # guesses, no more than the batch


def test_an_empty_update_holds_nothing():
    block = block_of("peeling", 10)
    found = recover(block, sent_by(block, images_of(1, 3), np.zeros(1)), noise_std=0.0, batch_size=10)
    assert found.single == 0 and np.isfinite(found.images()).all()


@pytest.mark.parametrize("relative_noise", [0.01, 0.1])
def test_peeling_goes_on_under_noise(relative_noise):
    count = 100
    block, images = block_of("peeling", count), images_of(count, 3)
    weights = np.random.default_rng(2).choice([-1.0, 1.0], count)
    rows = sent_by(block, images, weights, noise_std=relative_noise)
    found = recover(block, rows, noise_std=relative_noise, batch_size=count)
    error = np.sqrt(errors(found, images))
    # What was subtracted leaves its noise behind, so that errors grow along the way; more than that would be mistakes.
    assert np.median(error) < 2 * relative_noise
    assert (error < 5 * relative_noise).mean() > 0.9


def test_more_noise_recovers_fewer():
    count = 60
    block, images = block_of("peeling", count), images_of(count, 3)
    shares = []
    for noise in (1e-3, 0.12, 3.0):
        rows = sent_by(block, images, np.ones(count), noise_std=noise)
        shares.append((errors(recover(block, rows, noise_std=noise, batch_size=count), images) < 0.02).mean())
    assert shares[0] > 0.95 > shares[1] > shares[2] and shares[2] < 0.05


def test_images_can_be_taken_in_parts():
    block, images = block_of("peeling", 20), images_of(20, 3)
    found = recover(block, sent_by(block, images, np.ones(20)), noise_std=0.0, batch_size=20)
    parts = [found.images(first, first + 6) for first in range(0, len(found), 6)]
    assert np.array_equal(np.concatenate(parts), found.images())


def _alike(original, images):
    """Whether the nearest image by mean squared error has an SSIM of 0.95."""
    nearest = np.square(images - original).reshape(len(images), -1).sum(axis=1).argmin()
    return pairwise_ssim(original[None], images[nearest][None])[0, 0] <= 0.05


# What the project promises.
FLOORS = {"trap-weights": 0.15, "imprint": 0.50, "peeling": 0.98}


@pytest.mark.parametrize(
    ("data", "count"),
    [(DigitsData(name="digits"), 64), (DigitsData(name="digits"), 256), (PatchesData(name="patches"), 64)],
    ids=["64 digits", "256 digits", "64 patches"],
)
def test_real_images_come_back_without_noise(data, count):
    dataset = build_dataset(data, progress=Silent())
    order = np.random.default_rng(count).permutation(len(dataset))[: count + 500]
    pixels = np.stack([dataset[int(number)].input for number in order]).astype(np.float32) / dataset.info.scale
    mean, std = np.asarray(dataset.info.mean, np.float32), np.asarray(dataset.info.std, np.float32)
    normal = ((pixels - mean) / std).reshape(len(pixels), -1)
    attacked, public = normal[:count], normal[count:]
    for attack, floor in FLOORS.items():
        block = make_block(attack, public, rows=2 * count, batch_size=count, seed=1)
        found = recover(block, sent_by(block, attacked, random_weights(count)), noise_std=0.0, batch_size=count)
        images = np.clip(found.images().reshape(-1, *pixels.shape[1:]) * std + mean, 0, 1)
        share = np.mean([_alike(one, images) for one in pixels[:count]])
        assert share >= floor, (attack, share)
