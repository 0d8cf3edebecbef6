"""Low-rank adapters: y = layer(x) + scale / rank · up(down(x)); the layer is frozen and the factors are trained.

`down` leads to `rank` channels by the layer's own kind of product (a convolution of the same side and stride), `up`
from there to the outputs at each position. `up` is initially zero, so that a network starts out unchanged, bit for bit.
Both are tagged products (`dpmed.layer_tags`): the norms of their per-record gradients cost as much as the factors, and
the gradient of the layer's own weight is never computed.

Factors stay separate from the weight, also in files: a centred or standardised filter plus a product of factors is no
longer centred or standardised, and elsewhere merging would introduce rounding.

Source: Hu et al. (2021), "LoRA: Low-rank adaptation of large language models"; private: Yu et al. (2021),
"Differentially private fine-tuning of language models".
"""

import math
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeGuard, get_args

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from dpmed.errors import InputError
from dpmed.layer_tags import Product, multiply
from dpmed.models.convolution import Convolution, ConvolutionProduct, UpConvolution
from dpmed.models.initial import filled, normal
from dpmed.models.layers import Linear, LinearProduct

_MEMBER = re.compile(r"^members\.\d+\.")
_NAMED = 10


Layer = Linear | Convolution | UpConvolution


class Adapted(eqx.Module):
    """A layer with an adapter.

    Attributes:
        layer: as it was.
        down: the random factor; `(rank, inputs)` for a linear layer, `(*kernel, channels_in, rank)` for a convolution,
            `(channels_in, rank)` for a transposed one.
        up: zero at first; `(outputs, rank)`, `(*ones, rank, channels_out)`, or `(rank, 2**dimensions * channels_out)`.
        factor: scale over rank.
    """

    layer: Layer
    down: Float[Array, "..."]
    up: Float[Array, "..."]
    factor: float = eqx.field(static=True)

    def __init__(self, layer: Layer, rank: int, factor: float, *, key: PRNGKeyArray) -> None:
        down, up = _shapes(layer, rank)
        self.layer = layer
        self.down = normal(key, down) / math.sqrt(math.prod(down) // rank)
        self.up = filled(up, 0.0)
        self.factor = factor

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The layer's output for `x` and the adapter's."""
        first, second = _products(self.layer, x.ndim - 1)
        added = multiply(multiply(x, self.down, first), self.up, second)
        if isinstance(self.layer, UpConvolution):
            added = self.layer.spread(added)
        return self.layer(x) + self.factor * added


def _shapes(layer: Layer, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    match layer:
        case Linear():
            outputs, inputs = layer.weight.shape
            return (rank, inputs), (outputs, rank)
        case Convolution():
            *kernel, channels_in, channels_out = layer.weight.shape
            return (*kernel, channels_in, rank), (*[1] * len(kernel), rank, channels_out)
        case UpConvolution():
            channels_in, block = layer.weight.shape
            return (channels_in, rank), (rank, block)


def _products(layer: Layer, dimensions: int) -> tuple[Product, Product]:
    """How `down` and `up` are multiplied with what has so many dimensions of space."""
    if isinstance(layer, Linear):
        return LinearProduct(), LinearProduct()
    ones = ConvolutionProduct((1,) * dimensions, 1, "plain")
    if isinstance(layer, Convolution):
        return ConvolutionProduct(layer.weight.shape[:-2], layer.stride, "plain"), ones
    return ones, ones


def add_adapters(module: Any, *, rank: int, scale: float, layers: Sequence[str], key: PRNGKeyArray) -> PyTree:
    """The network with adapters at its layers, except the head.

    Args:
        module: a model from this package, with its initial weights.
        rank: number of channels between the factors.
        scale: the adapter's output is multiplied by scale / rank.
        layers: names of layers such as `stages.0.convolution`, or patterns with `*`.
        key: determines the random factors.

    Raises:
        InputError: a pattern matches no layer.
    """
    head = {id(leaf) for leaf in jax.tree.leaves(module.parts()[-1])}
    places = jax.tree.leaves_with_path(module, is_leaf=_can_be_adapted)
    names = {_name(path): None for path, node in places if _can_be_adapted(node) and id(node.weight) not in head}
    for pattern in layers:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"{pattern!r} matches no linear or convolutional layer before the head",
                where="model.lora.layers",
                remedy=f"There are {_some(list(names))}." if names else "Train the head alone: this network has none.",
            )
    keys = iter(jax.random.split(key, max(len(places), 1)))

    def adapt(path: Any, node: Any) -> Any:
        own, name = next(keys), _name(path)
        if name not in names or not _can_be_adapted(node) or not any(fnmatchcase(name, one) for one in layers):
            return node
        return Adapted(node, rank, scale / rank, key=own)

    return jax.tree.map_with_path(adapt, module, is_leaf=_can_be_adapted)


def _can_be_adapted(node: Any) -> TypeGuard[Layer]:
    # Subclasses of a network of one's own may compute something else.
    return type(node) in get_args(Layer)


def _name(path: Any) -> str:
    """The layer's path in its network; all members of an ensemble are adapted in the same way."""
    return _MEMBER.sub("", jax.tree_util.keystr(path, simple=True, separator="."))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
