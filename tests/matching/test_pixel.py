import numpy as np
import pytest
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio

from dpmed.matching import pixel
from dpmed.matching.pixel import pairwise_mse, pairwise_psnr


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 7, 3), (4, 5, 6, 1)])
@pytest.mark.parametrize("block", [1 << 27, 1])
def test_every_pair_has_scikit_images_value(shape, block, monkeypatch):
    monkeypatch.setattr(pixel, "_BLOCK_BYTES", block)
    random = np.random.default_rng(0)
    x, y = random.random((3, *shape), np.float32), random.random((4, *shape), np.float32)
    y[0] = x[0] + np.float32(1e-3)
    mse = [[mean_squared_error(a.astype(float), b.astype(float)) for b in y] for a in x]
    psnr = [[-peak_signal_noise_ratio(a.astype(float), b.astype(float), data_range=1.0) for b in y] for a in x]
    np.testing.assert_allclose(pairwise_mse(x, y), mse, rtol=1e-8)
    np.testing.assert_allclose(pairwise_psnr(x, y), psnr, rtol=1e-8)


def test_equal_images_have_no_error_and_a_finite_ratio():
    x = np.random.default_rng(0).random((3, 9, 9, 3), np.float32)
    assert np.diag(pairwise_mse(x, x)).max() < 1e-14
    assert (np.diag(pairwise_psnr(x, x)) == -100).all()


def test_no_reconstructions_give_an_empty_matrix():
    x = np.zeros((2, 3, 3, 1), np.float32)
    assert pairwise_mse(x, x[:0]).shape == (2, 0)
