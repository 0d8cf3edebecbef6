"""Convolution, normalisation and non-linearity: which of them a unit holds, and that it is their composition."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.models.blocks import Style, Unit
from dpmed.models.layers import BatchNorm, GroupNorm

KEY = jax.random.key(0)


def style(**changes):
    return Style(
        **{
            "dimensions": 2,
            "convolution": "plain",
            "normalisation": "group",
            "groups": 8,
            "activation": "relu",
            **changes,
        }
    )


@pytest.mark.parametrize(("groups", "channels"), [(8, 16), (32, 12), (32, 7), (6, 4)])
def test_groups_that_do_not_divide_the_channels_become_their_common_divisor(groups, channels):
    norm = style(groups=groups).norm(channels)
    assert isinstance(norm, GroupNorm)
    assert norm.groups == max(n for n in range(1, groups + 1) if groups % n == 0 and channels % n == 0)


def test_normalisation_is_what_its_name_says():
    assert style(normalisation="none").norm(4) is None
    norm, _ = eqx.nn.make_with_state(lambda: style(normalisation="batch").norm(4))()
    assert isinstance(norm, BatchNorm)


@pytest.mark.parametrize(("normalisation", "has_bias"), [("group", False), ("none", True)])
def test_a_bias_stands_only_where_no_normalisation_takes_it_away(normalisation, has_bias):
    layer = style(normalisation=normalisation).convolve(2, 3, key=KEY)
    assert (layer.bias is not None) == has_bias
    assert layer.weight.shape == (3, 3, 2, 3)


def test_a_unit_normalises_what_it_convolved_and_then_activates():
    unit = Unit(2, 4, style=style(groups=2), key=KEY)
    x = jax.random.normal(KEY, (5, 6, 2))
    values = np.asarray(unit.convolution(x), np.float64).reshape(-1, 2, 2)
    values = (values - values.mean((0, 2), keepdims=True)) / np.sqrt(values.var((0, 2), keepdims=True) + 1e-5)
    found, state = unit(x, None)
    assert state is None
    np.testing.assert_allclose(found, np.maximum(values, 0).reshape(5, 6, 4), rtol=1e-4, atol=1e-5)
    quiet = Unit(2, 4, style=style(groups=2), key=KEY, active=False)
    np.testing.assert_allclose(quiet(x, None)[0], values.reshape(5, 6, 4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_stride_leaves_every_second_place(stride):
    unit = Unit(1, 2, style=style(), key=KEY, stride=stride)
    assert unit(jnp.ones((5, 4, 1)), None)[0].shape == (math.ceil(5 / stride), math.ceil(4 / stride), 2)
