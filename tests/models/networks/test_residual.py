"""Residual networks: their gradients, their strides, and pooling against scipy's filter."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from dpmed.config.model import Resnet18Model, Resnet50Model
from dpmed.models.networks.residual import DEPTHS, Depths, _overlapping_max_pool
from tests.models.made import build, check_gradients


@pytest.mark.parametrize(
    ("keys", "shape"), [({"groups": 2}, (33, 32, 1)), ({"stem": "small"}, (8, 8, 9, 1))], ids=["large", "small"]
)
def test_gradients_are_those_of_finite_differences(keys, shape, monkeypatch):
    # A block in each stage: the second of each would say no more.
    monkeypatch.setitem(DEPTHS, "resnet18", Depths((1, 1, 1, 1)))
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


def test_gradients_of_bottleneck_blocks_are_those_of_finite_differences(monkeypatch):
    # A block in each stage: forty-odd more of the kind would say no more.
    monkeypatch.setitem(DEPTHS, "resnet50", Depths((1, 1, 1, 1), bottleneck=True))
    config = Resnet50Model(name="resnet50", channels=(2, 2, 2, 2), stem="small", groups=2, activation="tanh")
    check_gradients(config, (9, 8, 1))


def test_a_bottleneck_has_its_stride_at_three_by_three():
    block = build(Resnet50Model(name="resnet50", channels=(2, 2, 2, 2)), (8, 8, 1)).module.blocks[3]
    sides = [(unit.convolution.weight.shape[0], unit.convolution.stride) for unit in block.units]
    assert sides == [(1, 1), (3, 2), (1, 1)]
    assert block.shortcut.convolution.stride == 2 and block.shortcut.convolution.weight.shape[-1] == 8
