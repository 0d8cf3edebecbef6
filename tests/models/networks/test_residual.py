"""ResNet-18: its gradients, its strides, and pooling against scipy's filter."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from dpmed.config.model import Resnet18Model
from dpmed.models.networks.residual import _overlapping_max_pool
from tests.models.made import build, check_gradients


@pytest.mark.parametrize(
    ("keys", "shape"), [({"groups": 2}, (33, 32, 1)), ({"stem": "small"}, (8, 8, 9, 1))], ids=["large", "small"]
)
def test_gradients_are_those_of_finite_differences(keys, shape):
    check_gradients(Resnet18Model(name="resnet18", channels=(4, 4, 4, 8), **keys), shape)


@pytest.mark.parametrize(
    ("stem", "sides"), [("large", [16, 8, 8, 4, 4, 2, 2, 1, 1]), ("small", [32, 32, 32, 16, 16, 8, 8, 4, 4])]
)
def test_images_are_halved_where_the_paper_halves_them(stem, sides):
    module = build(Resnet18Model(name="resnet18", channels=(2, 2, 4, 4), stem=stem), (32, 32, 1)).module
    found = []

    def run(x):
        x, _ = module.stem(x, None)
        found.append(x.shape[0])
        x = _overlapping_max_pool(x) if module.pools else x
        for block in module.blocks:
            x, _ = block(x, None)
            found.append(x.shape[0])
        return x

    jax.eval_shape(run, jax.ShapeDtypeStruct((32, 32, 1), np.float32))
    assert found == sides


@pytest.mark.parametrize("shape", [(6, 7, 2), (5, 4, 3, 1)])
def test_the_pool_takes_the_maximum_of_three_at_every_second_place(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    window = (3,) * (len(shape) - 1) + (1,)
    everywhere = ndimage.maximum_filter(x, size=window, mode="constant", cval=-np.inf)
    every_second = tuple(slice(None, None, 2) for _ in shape[:-1])
    np.testing.assert_array_equal(_overlapping_max_pool(jax.numpy.asarray(x)), everywhere[every_second])
