import numpy as np
import pytest
from scipy.ndimage import convolve

from dpmed.matching.perceptual import pairwise_gmsd


def by_loop(x, y):
    """The paper's code, one pair of grey pictures in [0, 255]; a last odd row or column is left out."""
    across = np.array([[1, 0, -1]] * 3) / 3
    maps = []
    for picture in (x, y):
        half = convolve(255 * picture.astype(np.float64), np.full((2, 2), 0.25), mode="constant")[::2, ::2]
        half = half[: picture.shape[0] // 2, : picture.shape[1] // 2]
        horizontal, vertical = (convolve(half, kernel, mode="constant") for kernel in (across, across.T))
        maps.append(np.hypot(horizontal, vertical))
    a, b = maps
    return ((2 * a * b + 170) / (a * a + b * b + 170)).std()


@pytest.mark.parametrize("shape", [(16, 16), (33, 20), (2, 2)])
def test_every_pair_has_the_papers_value(shape):
    random = np.random.default_rng(0)
    x, y = random.random((3, *shape, 1), np.float32), random.random((4, *shape, 1), np.float32)
    expected = [[by_loop(a[..., 0], b[..., 0]) for b in y] for a in x]
    np.testing.assert_allclose(pairwise_gmsd(x, y), expected, atol=2e-6)


def test_colour_is_luma_and_volumes_are_the_mean_of_their_slices():
    random = np.random.default_rng(0)
    x, y = random.random((2, 12, 12, 3), np.float32), random.random((3, 12, 12, 3), np.float32)
    grey = [v @ np.array([0.299, 0.587, 0.114], np.float32) for v in (x, y)]
    np.testing.assert_allclose(pairwise_gmsd(x, y), pairwise_gmsd(grey[0][..., None], grey[1][..., None]), atol=1e-6)
    volumes = x[..., None], y[..., None]
    expected = np.mean([pairwise_gmsd(x[..., k : k + 1], y[..., k : k + 1]) for k in range(3)], axis=0)
    np.testing.assert_allclose(pairwise_gmsd(*volumes), expected, atol=1e-6)


def test_more_noise_is_farther():
    random = np.random.default_rng(0)
    picture = np.tile(np.sin(np.linspace(0, 12, 32)) / 2 + 0.5, (32, 1))[None, ..., None]
    noisy = np.concatenate([picture + s * random.standard_normal(picture.shape) for s in (0, 0.02, 0.1, 0.4)])
    found = pairwise_gmsd(picture.astype(np.float32), np.clip(noisy, 0, 1).astype(np.float32))[0]
    assert (np.diff(found) > 0).all() and found[0] < 1e-6
