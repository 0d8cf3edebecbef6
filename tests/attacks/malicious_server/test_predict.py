"""Predictions against simulation and against the attack itself; the choice rests on nothing but noise."""

import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from dpmed.attacks.malicious_server.blocks import make_block
from dpmed.attacks.malicious_server.predict import (
    Prediction,
    choose_attack,
    expected_similarity,
    pixel_noise,
    predict,
    predicted_share,
)
from dpmed.attacks.malicious_server.recover import recover
from dpmed.attacks.malicious_server.update import Responses, clipped_update


@pytest.mark.parametrize(("rows", "batch_size"), [(20, 10), (64, 64), (512, 256)])
def test_imprints_prediction_is_the_share_of_balls_alone_in_their_bin(rows, batch_size):
    random = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        bins = random.integers(0, rows, batch_size)
        shares.append((np.bincount(bins, minlength=rows)[bins] == 1).mean())
    error = 5 * np.std(shares) / math.sqrt(len(shares))
    assert predicted_share("imprint", rows=rows, batch_size=batch_size) == pytest.approx(np.mean(shares), abs=error)


@pytest.mark.parametrize(("rows", "batch_size"), [(20, 10), (128, 64)])
def test_trap_weights_prediction_is_the_share_that_some_row_catches_alone(rows, batch_size):
    random = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        fires = random.random((batch_size, rows)) < 1 / batch_size
        shares.append((fires & (fires.sum(axis=0) == 1)).any(axis=1).mean())
    error = 5 * np.std(shares) / math.sqrt(len(shares))
    found = predicted_share("trap-weights", rows=rows, batch_size=batch_size)
    assert found == pytest.approx(np.mean(shares), abs=error)


def test_peeling_has_its_threshold_where_theory_puts_it():
    # Three functionals: 0.818 images per row (Goodrich & Mitzenmacher, 2011; Molloy, 2004), softened by finite size.
    batch_size = 4000
    assert predicted_share("peeling", rows=round(batch_size / 0.76), batch_size=batch_size) > 0.99
    assert predicted_share("peeling", rows=round(batch_size / 0.88), batch_size=batch_size) < 0.7
    assert predicted_share("peeling", rows=2 * batch_size, batch_size=batch_size) > 0.999


@pytest.mark.parametrize("attack", ["imprint", "peeling"])
def test_pixel_noise_is_that_of_recovered_images(attack):
    random = np.random.default_rng(1)
    public, images = (random.standard_normal((count, 300)).astype(np.float32) for count in (400, 60))
    block = make_block(attack, public, rows=600, batch_size=60, seed=1)
    responses = Responses(slopes=1e6 * random.standard_normal(60), norms=np.ones(60))
    norm, noise_multiplier = 0.3, 1e-3
    update = clipped_update(images, block.activate(images), responses, scale=1.0, clipping_norm=norm)
    rows = update.send(noise_std=noise_multiplier * norm, generator=random)
    found = recover(block, rows, noise_std=noise_multiplier * norm, batch_size=60).images()
    errors = np.sqrt([np.square(found - image).mean(axis=1).min() for image in images])
    predicted = pixel_noise(attack, values=300, noise_multiplier=noise_multiplier)
    assert np.median(errors) == pytest.approx(predicted, rel=0.25)


def smooth_images(count, size=24):
    random = np.random.default_rng(0)
    rough = random.random((count, size, size, 1))
    for axis in (1, 2):
        rough = sum(np.roll(rough, shift, axis) for shift in range(5)) / 5
    contrast = np.linspace(0.2, 4, count)[:, None, None, None]
    return np.clip(0.5 + contrast * (rough - 0.5), 0, 1)


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.03, 0.1, 0.5])
def test_expected_similarity_is_that_of_images_with_noise_added(noise):
    images = smooth_images(60)
    noisy = images + noise * np.random.default_rng(1).standard_normal(images.shape)
    measured = [
        structural_similarity(
            one[..., 0], two[..., 0], gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
        )
        for one, two in zip(images, noisy, strict=True)
    ]
    expected = expected_similarity(images, np.array([noise]))
    np.testing.assert_allclose(expected, measured, atol=0.12)
    assert np.mean(expected) == pytest.approx(np.mean(measured), abs=0.05)


def test_without_noise_the_prediction_is_the_combinatorics():
    similarities = expected_similarity(smooth_images(5), np.array([0.0]))
    assert (similarities == 1).all()
    for attack in ("trap-weights", "imprint", "peeling"):
        found = predict(attack, similarities, rows=128, batch_size=64, pixel_noise=0.0)
        assert found.share == found.similarity == predicted_share(attack, rows=128, batch_size=64)


def test_only_images_that_stay_alike_count():
    found = predict("peeling", np.array([0.99, 0.96, 0.94, 0.11]), rows=400, batch_size=64, pixel_noise=0.3)
    assert found.share == pytest.approx(0.5) and found.similarity == pytest.approx(0.75)


def test_the_choice_is_the_largest_share_then_the_most_alike():
    def made(attack, share, similarity):
        return Prediction(attack=attack, share=share, similarity=similarity, pixel_noise=1.0)

    assert choose_attack([made("imprint", 0.6, 0.6), made("peeling", 0.2, 0.7)]).attack == "imprint"
    # At such noise no image passes, but peeling tells all of them apart.
    assert choose_attack([made("imprint", 0.0, 0.5), made("peeling", 0.0, 0.7)]).attack == "peeling"
