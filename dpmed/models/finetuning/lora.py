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
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from dpmed.errors import InputError
from dpmed.layer_tags import multiply
from dpmed.models.convolution import Convolution, ConvolutionProduct, UpConvolution
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
        self.up = jnp.zeros((outputs, rank), jnp.float32)
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
        self.up = jnp.zeros((*[1] * len(kernel), rank, channels_out), jnp.float32)
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
        self.up = jnp.zeros((rank, block), jnp.float32)
        self.factor = factor

    def __call__(self, x: Float[Array, "*space channels_in"]) -> Float[Array, "*double channels_out"]:
        """The layer's output for `x` and the adapter's."""
        product = ConvolutionProduct((1,) * (x.ndim - 1), 1, "plain")
        blocks = multiply(multiply(x, self.down, product), self.up, product)
        return self.layer(x) + self.factor * self.layer.spread(blocks)


Adapted = AdaptedLinear | AdaptedConvolution | AdaptedUpConvolution
# Layers of other classes are adapted only if they are listed here.
_ADAPTED: dict[type, Callable[..., Adapted]] = {
    Linear: AdaptedLinear,
    Convolution: AdaptedConvolution,
    UpConvolution: AdaptedUpConvolution,
}


def add_adapters(
    module: Any, *, rank: int, scale: float, layers: Sequence[str], key: PRNGKeyArray, where: str
) -> PyTree:
    """The network with adapters at its layers, except the head.

    Args:
        module: a model from this package, with its initial weights.
        rank: number of channels between the factors.
        scale: the adapter's output is multiplied by scale / rank.
        layers: names of layers such as `stages.0.convolution`, or patterns with `*`.
        key: determines the random factors.
        where: the key of the config that `layers` come from, for messages.

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
    """The layer's path in its network; all members of an ensemble are adapted in the same way."""
    return _MEMBER.sub("", jax.tree_util.keystr(path, simple=True, separator="."))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _random(key: PRNGKeyArray, shape: tuple[int, ...], inputs: int) -> Float[Array, "..."]:
    return jax.random.normal(key, shape, jnp.float32) / math.sqrt(inputs)
