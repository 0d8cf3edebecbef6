import numpy as np
import pytest
from scipy.ndimage import correlate1d
from skimage.metrics import structural_similarity

from dpmed.matching import ssim
from dpmed.matching.ssim import pairwise_ms_ssim, pairwise_ssim, scales_that_fit, window_that_fits

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def images(count, shape, seed=0):
    """Noise, a flat image, halves of black and white (the worst for float32), and near copies."""
    random = np.random.default_rng(seed)
    found = random.random((count, *shape)).astype(np.float32)
    found[0] = 1.0
    half = np.arange(shape[0]) > shape[0] / 2
    found[1] = 0.9 * half.reshape(-1, *[1] * (len(shape) - 1))
    found[2] = np.clip(found[1] + 0.05 * random.standard_normal(shape), 0, 1)
    return found


def by_scikit_image(x, y):
    return 1 - structural_similarity(
        x.astype(np.float64),
        y.astype(np.float64),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=-1,
    )


@pytest.mark.parametrize("shape", [(11, 11, 1), (64, 64, 1), (20, 33, 3), (101, 95, 1), (13, 14, 15, 2)])
def test_every_pair_has_scikit_images_value(shape):
    x, y = images(4, shape), images(5, shape, seed=1)
    expected = [[by_scikit_image(one, other) for other in y] for one in x]
    np.testing.assert_allclose(pairwise_ssim(x, y), expected, atol=1e-5)


def by_loop(x, y, window, *, contrast_only=False):
    """The definition for one plane, in float64: filter, crop to where the window fits, average."""
    places = np.arange(window) - window // 2
    weights = np.exp(-0.5 * (places / 1.5) ** 2)
    weights /= weights.sum()
    inner = tuple(slice(window // 2, side - window // 2) for side in x.shape)

    def blur(values):
        for axis in range(values.ndim):
            values = correlate1d(values, weights, axis)
        return values[inner]

    x, y = x.astype(np.float64), y.astype(np.float64)
    mean_x, mean_y = blur(x), blur(y)
    contrast = (2 * (blur(x * y) - mean_x * mean_y) + 0.03**2) / (
        blur(x * x) - mean_x**2 + blur(y * y) - mean_y**2 + 0.03**2
    )
    if contrast_only:
        return contrast.mean()
    return (contrast * (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)).mean()


@pytest.mark.parametrize(("side", "window"), [(8, 7), (9, 9), (3, 3), (2, 1)])
def test_small_images_have_the_largest_odd_window_that_fits(side, window):
    x, y = images(3, (side, side + 4, 1)), images(4, (side, side + 4, 1), seed=1)
    assert window_that_fits((side, side + 4)) == window
    expected = [[1 - by_loop(one[..., 0], other[..., 0], window) for other in y] for one in x]
    np.testing.assert_allclose(pairwise_ssim(x, y), expected, atol=1e-5)


def ms_by_loop(x, y):
    scales, product = scales_that_fit(x.shape), 1.0
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    x, y = x.astype(np.float64), y.astype(np.float64)
    for scale in range(scales):
        value = by_loop(x, y, 11, contrast_only=scale < scales - 1)
        product *= max(value, 0.0) ** weights[scale]
        even = [side // 2 * 2 for side in x.shape]
        x, y = (v[: even[0], : even[1]].reshape(even[0] // 2, 2, even[1] // 2, 2).mean((1, 3)) for v in (x, y))
    return 1 - product


@pytest.mark.parametrize(("shape", "scales"), [((12, 15), 1), ((23, 30), 2), ((176, 181), 5)])
def test_several_scales_agree_with_the_definition(shape, scales):
    x, y = images(3, (*shape, 1)), images(3, (*shape, 1), seed=1)[:2]
    # Near copies at two strengths, where all scales count.
    y[1] = np.clip(x[1] + 0.02 * y[0], 0, 1)
    assert scales_that_fit(shape) == scales
    expected = [[ms_by_loop(one[..., 0], other[..., 0]) for other in y] for one in x]
    np.testing.assert_allclose(pairwise_ms_ssim(x, y), expected, atol=3e-5)


def test_volumes_by_slice_are_the_mean_of_their_slices():
    x, y = images(3, (16, 17, 4, 1)), images(3, (16, 17, 4, 1), seed=1)
    for pairwise in (pairwise_ssim, pairwise_ms_ssim):
        expected = np.mean([pairwise(x[:, :, :, k], y[:, :, :, k]) for k in range(4)], axis=0)
        np.testing.assert_allclose(pairwise(x, y, by_slice=True), expected, atol=1e-12)


def test_blocks_change_nothing(monkeypatch):
    x, y = images(5, (16, 16, 1)), images(7, (16, 16, 1), seed=1)
    whole = pairwise_ssim(x, y)
    monkeypatch.setattr(ssim, "_CACHE_VALUES", 3 * 256)
    monkeypatch.setattr(ssim, "_BLOCK_VALUES", 2 * 256)
    np.testing.assert_allclose(pairwise_ssim(x, y), whole, atol=1e-6)


def test_an_image_is_at_no_distance_from_itself_and_distance_is_symmetric():
    x = images(6, (24, 24, 3))
    for pairwise in (pairwise_ssim, pairwise_ms_ssim):
        found = pairwise(x, x)
        assert np.abs(np.diag(found)).max() < 1e-6
        np.testing.assert_allclose(found, found.T, atol=1e-6)


def test_no_reconstructions_give_an_empty_matrix():
    x = images(3, (16, 16, 1))
    assert pairwise_ssim(x, x[:0]).shape == (3, 0) and pairwise_ms_ssim(x, x[:0]).shape == (3, 0)


def test_float32_alone_would_miss_the_tolerance_for_flat_halves(monkeypatch):
    """Why there is a second pass at all; should this ever fail, the pass may go."""
    x = images(3, (64, 64, 1))[1:2]
    other = (x / np.float32(0.9)).astype(np.float32)
    monkeypatch.setattr(ssim, "_FRAIL", np.inf)
    assert abs(pairwise_ssim(x, other)[0, 0] - by_scikit_image(x[0], other[0])) > 1e-5


@pytest.mark.parametrize("metric", [pairwise_ssim, pairwise_ms_ssim])
def test_equal_images_are_at_distance_zero_and_none_is_below(metric):
    images = np.random.default_rng(3).random((6, 24, 24, 1), np.float32)
    distances = metric(images, images)
    assert distances.min() >= 0 and np.diag(distances).max() < 1e-6
