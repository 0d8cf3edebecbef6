"""Low-rank adapters: y = layer(x) + scale / rank · up(down(x)); the layer stays as it was, the factors are trained.

`down` leads to `rank` channels by the layer's own kind of product (a convolution of the same side and stride), `up`
from there to the outputs at each position. `up` is zero at first, so that a network begins as it was, bit for bit. Both
are products of layers (`dpmed.layer_tags`): norms of their per-record gradients cost what the factors cost, and no
gradient by the layer's own weight is ever made.

Factors stay apart from the weight, also in files: a centred or standardised filter plus a product of factors is no
centred or standardised filter, and elsewhere merging would round.

Source: Hu et al. (2021), "LoRA: Low-rank adaptation of large language models"; private: Yu et al. (2021),
"Differentially private fine-tuning of language models".
"""

import math
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from dpmed.errors import InputError
from dpmed.layer_tags import multiply
from dpmed.models.convolution import Convolution, ConvolutionProduct, UpConvolution
from dpmed.models.initial import filled, normal
from dpmed.models.layers import Linear, LinearProduct

_MEMBER = re.compile(r"^members\.\d+\.")
_NAMED = 10


class AdaptedLinear(eqx.Module):
    """A linear layer with an adapter.

    Attributes:
        layer: as it was.
        down: `(rank, inputs)`.
        up: `(outputs, rank)`, zero at first.
        factor: scale over rank.
    """

    layer: Linear
    down: Float[Array, "rank inputs"]
    up: Float[Array, "outputs rank"]
    factor: float = eqx.field(static=True)

    def __init__(self, layer: Linear, rank: int, factor: float, *, key: PRNGKeyArray) -> None:
        outputs, inputs = layer.weight.shape
        self.layer = layer
        self.down = _random(key, (rank, inputs), inputs)
        self.up = filled((outputs, rank), 0.0)
        self.factor = factor

    def __call__(self, x: Float[Array, "*positions inputs"]) -> Float[Array, "*positions outputs"]:
        """The layer's map of `x` and the adapter's."""
        low = multiply(x, self.down, LinearProduct())
        return self.layer(x) + self.factor * multiply(low, self.up, LinearProduct())


class AdaptedConvolution(eqx.Module):
    """A convolution with an adapter.

    Attributes:
        layer: as it was.
        down: `(*kernel, channels_in, rank)`.
        up: `(*ones, rank, channels_out)`, zero at first.
        factor: scale over rank.
    """

    layer: Convolution
    down: Float[Array, "*kernel channels_in rank"]
    up: Float[Array, "*ones rank channels_out"]
    factor: float = eqx.field(static=True)

    def __init__(self, layer: Convolution, rank: int, factor: float, *, key: PRNGKeyArray) -> None:
        *kernel, channels_in, channels_out = layer.weight.shape
        self.layer = layer
        self.down = _random(key, (*kernel, channels_in, rank), math.prod(kernel) * channels_in)
        self.up = filled((*[1] * len(kernel), rank, channels_out), 0.0)
        self.factor = factor

    def __call__(self, x: Float[Array, "*space channels_in"]) -> Float[Array, "*out channels_out"]:
        """The layer's convolution of `x` and the adapter's."""
        kernel, ones = self.down.shape[:-2], self.up.shape[:-2]
        low = multiply(x, self.down, ConvolutionProduct(kernel, self.layer.stride, "plain"))
        return self.layer(x) + self.factor * multiply(low, self.up, ConvolutionProduct(ones, 1, "plain"))


class AdaptedUpConvolution(eqx.Module):
    """A transposed convolution of side and stride two with an adapter.

    Attributes:
        layer: as it was.
        down: `(channels_in, rank)`.
        up: `(rank, 2**dimensions * channels_out)`, zero at first.
        factor: scale over rank.
    """

    layer: UpConvolution
    down: Float[Array, "channels_in rank"]
    up: Float[Array, "rank block_times_channels_out"]
    factor: float = eqx.field(static=True)

    def __init__(self, layer: UpConvolution, rank: int, factor: float, *, key: PRNGKeyArray) -> None:
        channels_in, block = layer.weight.shape
        self.layer = layer
        self.down = _random(key, (channels_in, rank), channels_in)
        self.up = filled((rank, block), 0.0)
        self.factor = factor

    def __call__(self, x: Float[Array, "*space channels_in"]) -> Float[Array, "*double channels_out"]:
        """The layer's output for `x` and the adapter's."""
        product = ConvolutionProduct((1,) * (x.ndim - 1), 1, "plain")
        blocks = multiply(multiply(x, self.down, product), self.up, product)
        return self.layer(x) + self.factor * self.layer.spread(blocks)


Adapted = AdaptedLinear | AdaptedConvolution | AdaptedUpConvolution
# A layer of another class is adapted once it has its line here.
_ADAPTED: dict[type, Callable[..., Adapted]] = {
    Linear: AdaptedLinear,
    Convolution: AdaptedConvolution,
    UpConvolution: AdaptedUpConvolution,
}


def add_adapters(
    module: Any, *, rank: int, scale: float, layers: Sequence[str], key: PRNGKeyArray, where: str
) -> PyTree:
    """The network with adapters at its layers, the head's excepted.

    Args:
        module: a model of this room, with the weights that it begins with.
        rank: channels between the factors.
        scale: the adapter's output is multiplied by scale / rank.
        layers: names of layers as `stages.0.convolution`, or patterns of names with `*`.
        key: fixes the random factors.
        where: the key of the config that `layers` come from, for messages.

    Raises:
        InputError: a pattern fits no layer.
    """
    head = {id(leaf) for leaf in jax.tree.leaves(module.parts()[-1])}
    places = jax.tree.leaves_with_path(module, is_leaf=_can_be_adapted)
    names = {_name(path): None for path, node in places if _can_be_adapted(node) and id(node.weight) not in head}
    for pattern in layers:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"{pattern!r} fits no linear or convolutional layer before the head",
                where=where,
                remedy=f"There are {_some(list(names))}." if names else "Train the head alone: this network has none.",
            )
    keys = iter(jax.random.split(key, max(len(places), 1)))

    def adapt(path: Any, node: Any) -> Any:
        own, name = next(keys), _name(path)
        if name not in names or not _can_be_adapted(node) or not any(fnmatchcase(name, one) for one in layers):
            return node
        return _ADAPTED[type(node)](node, rank, scale / rank, key=own)

    return jax.tree.map_with_path(adapt, module, is_leaf=_can_be_adapted)


def _can_be_adapted(node: Any) -> bool:
    return type(node) in _ADAPTED


def _name(path: Any) -> str:
    """The layer's place in its network; all members of an ensemble are adapted alike."""
    return _MEMBER.sub("", jax.tree_util.keystr(path, simple=True, separator="."))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _random(key: PRNGKeyArray, shape: tuple[int, ...], inputs: int) -> Float[Array, "..."]:
    return normal(key, shape) / math.sqrt(inputs)
