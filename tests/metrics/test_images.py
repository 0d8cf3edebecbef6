"""MSE, PSNR and SSIM of images against scikit-image and scikit-learn."""

import numpy as np
import pytest
from skimage import metrics as ski

from dpmed.metrics.images import by_sample

NAMES = ("mse", "psnr", "ssim")


def draw(seed, shape, count=3):
    rng = np.random.default_rng(seed)
    targets = rng.uniform(-1.0, 2.5, (count, *shape)).astype(np.float32)
    return (targets + 0.3 * rng.normal(size=targets.shape)).astype(np.float32), targets


@pytest.mark.parametrize("shape", [(16, 14, 1), (12, 12, 3), (11, 12, 13, 1)])
@pytest.mark.parametrize("seed", range(2))
def test_metrics_are_scikit_images(seed, shape):
    images, targets = draw(seed, shape)
    span = float(targets.max() - targets.min())
    table = by_sample(NAMES, images, targets)
    for place, (image, target) in enumerate(zip(images, targets, strict=True)):
        assert table["mse"][place] == pytest.approx(ski.mean_squared_error(target, image), rel=1e-5)
        psnr = ski.peak_signal_noise_ratio(target, image, data_range=span)
        assert table["psnr"][place] == pytest.approx(psnr, rel=1e-5)
        ssim = ski.structural_similarity(
            target,
            image,
            data_range=span,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert table["ssim"][place] == pytest.approx(ssim, rel=1e-5)


@pytest.mark.parametrize("side", [3, 4, 7, 8, 10])
def test_small_images_have_a_smaller_window(side):
    images, targets = draw(0, (side, side + 1, 1))
    span = float(targets.max() - targets.min())
    window = side if side % 2 else side - 1
    wanted = [
        ski.structural_similarity(image, target, data_range=span, channel_axis=-1, win_size=window)
        for image, target in zip(images, targets, strict=True)
    ]
    np.testing.assert_allclose(by_sample(("ssim",), images, targets)["ssim"], wanted, rtol=1e-6)


def test_equal_images_are_finite_and_best():
    _, targets = draw(0, (12, 12, 1))
    table = by_sample(NAMES, targets, targets)
    np.testing.assert_array_equal(table["mse"], 0.0)
    np.testing.assert_allclose(table["ssim"], 1.0)
    np.testing.assert_allclose(table["psnr"], 140.0)


def test_targets_of_one_value_are_borne():
    targets = np.full((2, 12, 12, 1), 0.5, np.float32)
    table = by_sample(NAMES, targets + np.float32(0.1), targets)
    assert all(np.isfinite(values).all() for values in table.values())
    np.testing.assert_allclose(table["psnr"], 20.0, rtol=1e-4)


def test_only_what_is_named_is_computed():
    images, targets = draw(0, (2, 2, 1))
    assert list(by_sample(("mse",), images, targets)) == ["mse"]
