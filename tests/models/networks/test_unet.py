"""U-Net: an image for an image, its gradients, and what becomes of odd sides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.config.model import UnetModel
from dpmed.models.networks.unet import _grow
from tests.models.made import build, check_gradients


@pytest.mark.parametrize(
    ("keys", "shape", "predicted"),
    [
        ({"channels": (4, 6, 8), "groups": 2}, (9, 11, 1), (9, 11, 3)),
        ({"channels": (4, 6), "normalisation": "none"}, (5, 4, 7, 1), (5, 4, 7, 3)),
    ],
)
def test_gradients_are_those_of_finite_differences(keys, shape, predicted):
    check_gradients(UnetModel(name="unet", **keys), shape, "segmentation", predicted)


def test_what_pooling_dropped_comes_back_as_the_reflection():
    x = np.random.default_rng(0).normal(size=(4, 6, 2)).astype(np.float32)
    grown = _grow(jnp.asarray(x), (5, 6))
    np.testing.assert_array_equal(grown, np.pad(x, [(0, 1), (0, 0), (0, 0)], mode="reflect"))
    np.testing.assert_array_equal(grown[4], x[2])
    assert _grow(jnp.asarray(x), (4, 6)).shape == x.shape


def test_every_level_is_seen_again_on_the_way_up():
    module = build(UnetModel(name="unet", channels=(2, 4, 8), groups=2), (8, 8, 1), task="segmentation").module
    # What came up and what was kept: twice the channels go into each merge.
    assert [merge.units[0].convolution.weight.shape[-2:] for merge in module.merge] == [(8, 4), (4, 2)]
    assert module.parts()[-1] is module.head and module.head.bias is not None
    number = sum(leaf.size for leaf in jax.tree.leaves(module.parts()) if hasattr(leaf, "size"))
    assert number == sum(leaf.size for leaf in jax.tree.leaves(module) if hasattr(leaf, "size"))
