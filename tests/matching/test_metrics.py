import numpy as np
import pytest

from dpmed.errors import InputError
from dpmed.matching.metrics import METRICS, build_metric

FREE = [name for name in METRICS if name not in {"lpips", "fid-features"}]


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize("shape", [(12, 13, 3), (12, 12, 4, 1)])
def test_every_metric_puts_an_image_nearest_to_itself(name, shape):
    images = np.random.default_rng(0).random((4, *shape), np.float32)
    found = build_metric(name, shape=shape, by_slice=True).pairwise(images, images[::-1].copy())
    assert (found.argmin(1) == [3, 2, 1, 0]).all()


@pytest.mark.parametrize(
    ("name", "shape", "by_slice", "note"),
    [
        ("ssim", (64, 64, 1), False, ""),
        ("ssim", (8, 8, 1), False, "window 7"),
        ("ssim", (64, 64, 6, 1), False, "window 5"),
        ("ssim", (64, 64, 6, 1), True, ""),
        ("ms-ssim", (32, 32, 1), False, "2 of 5 scales"),
        ("ms-ssim", (8, 8, 1), False, "window 7; 1 of 5 scales"),
        ("mse", (8, 8, 1), False, ""),
    ],
)
def test_what_differs_for_small_images_is_said(name, shape, by_slice, note):
    assert build_metric(name, shape=shape, by_slice=by_slice).note == note


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("sim", (8, 8, 1), "no such metric"),
        ("lpips", (64, 64, 3), "lpips_weights: lpips needs trained weights"),
        ("lpips", (8, 8, 3), "at least 32 pixels"),
        ("fid-features", (8, 8, 3), "inception_weights: fid-features needs trained weights"),
        ("gmsd", (1, 8, 1), "at least 2 pixels"),
    ],
)
def test_what_cannot_be_computed_is_refused_with_the_way_out(name, shape, message):
    with pytest.raises(InputError, match=message):
        build_metric(name, shape=shape)
