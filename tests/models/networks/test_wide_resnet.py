"""Wide residual networks: gradients, and as many convolutions as the depth says."""

import jax
import pytest

from dpmed.config.model import WideResnetModel
from dpmed.models.blocks import Style
from dpmed.models.networks.wide_resnet import WideResnet
from tests.models.made import KEY, build, check_gradients


def test_gradients_are_those_of_finite_differences():
    check_gradients(WideResnetModel(name="wide_resnet", depth=10, width=1, groups=4), (8, 9, 2))


@pytest.mark.parametrize("depth", [10, 16])
def test_depth_counts_the_convolutions_of_the_main_path_and_the_last_layer(depth):
    module = build(WideResnetModel(name="wide_resnet", depth=depth, width=1), (8, 8, 1)).module
    filters = [leaf for leaf in jax.tree.leaves(module) if leaf.ndim == 4]
    # Zagoruyko & Komodakis count shortcuts, whose filters have side one, too: of three stages two change channels.
    assert sum(leaf.shape[0] == 3 for leaf in filters) == depth - 3
    assert sum(leaf.shape[0] == 1 for leaf in filters) == 2
    assert module.head.weight.shape == (3, 64)


def test_another_depth_is_refused():
    style = Style(dimensions=2, convolution="plain", normalisation="group", groups=2, activation="relu")
    with pytest.raises(ValueError, match="6 n"):
        WideResnet(1, 2, depth=12, width=1, style=style, key=KEY)
