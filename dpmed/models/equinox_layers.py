"""Equinox's own layers in a user's network, tagged for fast gradient norms while the network is traced.

`announced` returns a copy of a module in which each `equinox.nn.Linear`, `Conv` and `Embedding` is replaced by a
subclass that computes the same through `dpmed.layer_tags.multiply`. Only exact types are replaced: a user's own
subclass may compute anything and is left unchanged, as is every call that is not the layer's ordinary one, for example
with another type or shape. In these cases, and if a weight is also used elsewhere, its gradients are computed by
`vmap`, like those of any other array.

Maxima over windows side by side are taken by comparisons: the same values and gradients as Equinox' own, whose backward
pass (XLA's select-and-scatter) is slow on CPUs.

Only classes are changed, and only during a call: what is trained, saved and loaded is the user's own module. Biases and
norms are not tagged: their per-record gradients are no larger than the layer's output.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dpmed.layer_tags import RecordGradients, multiply
from dpmed.models.convolution import ConvolutionProduct, convolve
from dpmed.models.layers import LinearProduct

_PLAIN_LAYERS = (eqx.nn.Linear, eqx.nn.Embedding, eqx.nn.Conv, eqx.nn.Conv1d, eqx.nn.Conv2d, eqx.nn.Conv3d)
_MAX_POOLS = (eqx.nn.MaxPool1d, eqx.nn.MaxPool2d, eqx.nn.MaxPool3d)
_NORMS = (eqx.nn.LayerNorm, eqx.nn.GroupNorm, eqx.nn.RMSNorm)


def announced(module: Any) -> Any:
    """`module` with its known layers tagged; it computes the same."""
    return jax.tree.map(_announced_layer, module, is_leaf=lambda node: _is_plain_layer(node) or _is_max_pool(node))


def small_leaves(module: Any) -> set[int]:
    """The indices of `module`'s inexact arrays whose per-record gradients cost no more than an activation.

    These are biases of known layers, and scale and shift of norms.
    """
    found, number = set(), 0
    for part in jax.tree.leaves(module, is_leaf=lambda node: _is_plain_layer(node) or type(node) in _NORMS):
        for path, _ in jax.tree.leaves_with_path(eqx.filter(part, eqx.is_inexact_array)):
            if type(part) in _NORMS or (_is_plain_layer(part) and jax.tree_util.keystr(path) == ".bias"):
                found.add(number)
            number += 1
    return found


@dataclass(frozen=True)
class ChannelsFirstFilters:
    """`equinox.nn.Conv` as a matrix product, for a zero-padded image with channels last.

    Attributes:
        kernel: the filters' sides.
        stride: step in each dimension.
        padding: zeros before and after in each dimension, never negative.
        dilation: distance between the positions that a filter sees, in each dimension.
        groups: number of channel groups.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    def apply(self, x: Array, weight: Array) -> Array:
        """The convolution of one image `(*space, channel)` with filters `(out, in, *kernel)`."""
        filters = jnp.moveaxis(weight, (0, 1), (-1, -2)).astype(x.dtype)
        if self._shipped() is not None:
            return convolve(x, filters, stride=self.stride[0])
        space = "DHW"[-len(self.kernel) :]
        found: Array = jax.lax.conv_general_dilated(
            x[None],
            filters,
            self.stride,
            self.padding,
            rhs_dilation=self.dilation,
            feature_group_count=self.groups,
            dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        )
        return found[0]

    def columns(self, x: Array) -> Array | None:
        """The patches; None with groups, whose gradient is not a single product."""
        if self.groups > 1:
            return None
        patches = self._patches(x[None])
        return patches.reshape(math.prod(patches.shape[1:-2]), -1)

    def rounding(self, x: Sequence[int], channels: int) -> float:
        """One sum over views and positions, or as in shipped networks."""
        shipped = self._shipped()
        if shipped is not None:
            return shipped.rounding(x, channels)
        return float(x[1] * math.prod(self._sides(x[2:-1])))

    def gradients(self, x: Array, gradient: Array, weight: Array) -> RecordGradients:
        """For each record, the patches times the gradient of the output, both over all views, channels last."""
        shipped = self._shipped()
        if shipped is not None:
            return replace(shipped.gradients(x, gradient, jnp.moveaxis(weight, (0, 1), (-1, -2))), outputs_first=True)
        batch, *_, channels = gradient.shape
        patches = self._patches(x.reshape(-1, *x.shape[2:]))
        places, inputs = patches.shape[-2:]
        grouped = patches.reshape(batch, -1, places, self.groups, inputs // self.groups)
        by_position = gradient.reshape(batch, -1, self.groups, channels // self.groups)
        found = jnp.einsum("npkgi,npgo->nkigo", grouped, by_position)
        return RecordGradients(found.reshape(batch, *self.kernel, inputs // self.groups, channels), outputs_first=True)

    def _shipped(self) -> ConvolutionProduct | None:
        """The same product as used in shipped networks, if they use it."""
        steps, around = set(self.stride), tuple((side // 2, side // 2) for side in self.kernel)
        is_odd, is_dense = all(side % 2 for side in self.kernel), set(self.dilation) == {1}
        if self.groups > 1 or len(steps) > 1 or not (is_odd and is_dense) or self.padding != around:
            return None
        return ConvolutionProduct(self.kernel, self.stride[0], "plain")

    def _sides(self, image: Sequence[int]) -> list[int]:
        """The result's sides."""
        spans = [(side - 1) * apart + 1 for side, apart in zip(self.kernel, self.dilation, strict=True)]
        padded = [side + sum(width) for side, width in zip(image, self.padding, strict=True)]
        return [(side - span) // step + 1 for side, span, step in zip(padded, spans, self.stride, strict=True)]

    def _patches(self, images: Array) -> Array:
        """`(image, *out, place, channel)`: what the filters see."""
        padded = jnp.pad(images, [(0, 0), *self.padding, (0, 0)])
        out = self._sides(images.shape[1:-1])
        shifted = []
        for place in itertools.product(*map(range, self.kernel)):
            first = [number * apart for number, apart in zip(place, self.dilation, strict=True)]
            shifted.append(
                padded[
                    :,
                    *(
                        slice(begin, begin + step * (count - 1) + 1, step)
                        for begin, step, count in zip(first, self.stride, out, strict=True)
                    ),
                ]
            )
        return jnp.stack(shifted, axis=-2)


@dataclass(frozen=True)
class LookupProduct:
    """An embedding table as a matrix product, with a row that is 1 at the index and 0 elsewhere."""

    def apply(self, x: Array, weight: Array) -> Array:
        """The vector at the position of the 1."""
        # Looked up rather than multiplied, since devices round products.
        return weight[jnp.argmax(x)].astype(x.dtype)

    def columns(self, x: Array) -> Array:
        """The row."""
        return x[None]

    def rounding(self, x: Sequence[int], channels: int) -> float:
        """One sum over views."""
        del channels
        return float(x[1])

    def gradients(self, x: Array, gradient: Array, weight: Array) -> RecordGradients:
        """For each record, the gradients of the output, each at its index, over all views."""
        del weight
        return RecordGradients(jnp.einsum("bvn,bve->bne", x, gradient))


class _Linear(eqx.nn.Linear):
    """Announced."""

    def __init__(self, layer: eqx.nn.Linear) -> None:
        _take_over(self, layer)

    def __call__(self, x: Array, *, key: Any = None) -> Array:
        outputs = 1 if self.out_features == "scalar" else self.out_features
        if not (_is_float32(x, self.weight) and _fits(self.weight, outputs, *jnp.shape(x)) and x.ndim == 1):
            return super().__call__(x, key=key)
        y = multiply(x, self.weight, LinearProduct())
        if self.bias is not None:
            y = y + self.bias
        return jnp.squeeze(y) if self.out_features == "scalar" else y


class _Embedding(eqx.nn.Embedding):
    """Announced."""

    def __init__(self, layer: eqx.nn.Embedding) -> None:
        _take_over(self, layer)

    def __call__(self, x: Any, *, key: Any = None) -> Array:
        is_index = isinstance(x, jax.Array) and x.shape == () and jnp.issubdtype(x.dtype, jnp.integer)
        is_table = self.weight.dtype == jnp.float32 and _fits(self.weight, self.num_embeddings, self.embedding_size)
        if not (is_index and is_table and self.num_embeddings > 0):
            return super().__call__(x, key=key)
        # As in indexing: negative numbers count from the end, and those out of range are clamped.
        place = jnp.clip(jnp.where(x < 0, x + self.num_embeddings, x), 0, self.num_embeddings - 1)
        row = (jnp.arange(self.num_embeddings) == place).astype(jnp.float32)
        return multiply(row, self.weight, LookupProduct())


class _Conv(eqx.nn.Conv):
    """Announced."""

    def __init__(self, layer: eqx.nn.Conv) -> None:
        _take_over(self, layer)

    def __call__(self, x: Array, *, key: Any = None) -> Array:
        is_image = _is_float32(x, self.weight) and x.ndim == self.num_spatial_dims + 1
        filters = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        if not (is_image and x.shape[0] == self.in_channels and _fits(self.weight, *filters)):
            return super().__call__(x, key=key)
        padded = x if self.padding_mode == "ZEROS" else self._nonzero_pad(x)
        padding = self._zeros_around(padded)
        if any(width < 0 for pair in padding for width in pair):
            return super().__call__(x, key=key)
        product = ChannelsFirstFilters(self.kernel_size, self.stride, padding, self.dilation, self.groups)
        y = jnp.moveaxis(multiply(jnp.moveaxis(padded, 0, -1), self.weight, product), -1, 0)
        return y if self.bias is None or not self.use_bias else y + self.bias

    def _zeros_around(self, x: Array) -> tuple[tuple[int, int], ...]:
        if self.padding_mode != "ZEROS":
            return ((0, 0),) * self.num_spatial_dims
        if not isinstance(self.padding, str):
            return tuple((int(before), int(after)) for before, after in self.padding)
        spans = [(side - 1) * apart + 1 for side, apart in zip(self.kernel_size, self.dilation, strict=True)]
        found = jax.lax.padtype_to_pads(x.shape[1:], spans, self.stride, self.padding)
        return tuple((int(before), int(after)) for before, after in found)


class _MaxPool(eqx.nn.Pool):
    """Computed by comparisons if windows are adjacent."""

    def __init__(self, layer: eqx.nn.Pool) -> None:
        _take_over(self, layer)

    def __call__(self, x: Array, *, key: Any = None) -> Array:
        is_image = isinstance(x, jax.Array) and x.ndim == self.num_spatial_dims + 1
        is_float = is_image and jnp.issubdtype(x.dtype, jnp.floating)
        is_maximum = self.operation is jax.lax.max and self.init == -math.inf
        is_bare = is_maximum and not self.use_ceil and all(width == 0 for pair in self.padding for width in pair)
        if not (is_float and is_bare and self.kernel_size == self.stride):
            return super().__call__(x, key=key)
        counts = [side // width for side, width in zip(x.shape[1:], self.stride, strict=True)]
        inner = x[:, *(slice(count * width) for count, width in zip(counts, self.stride, strict=True))]
        pairs = zip(counts, self.stride, strict=True)
        windows = jnp.moveaxis(inner, 0, -1).reshape(*itertools.chain.from_iterable(pairs), x.shape[0])
        first, *others = (
            windows[*itertools.chain.from_iterable((slice(None), at) for at in place)]
            for place in itertools.product(*map(range, self.stride))
        )
        for value in others:
            # The first of equal ones, as Equinox' pool has it: its gradient goes to that one alone. Not a number wins.
            first = jnp.where((value > first) | jnp.isnan(value), value, first)
        return jnp.moveaxis(first, -1, 0)


def _is_plain_layer(node: Any) -> bool:
    return type(node) in _PLAIN_LAYERS


def _is_max_pool(node: Any) -> bool:
    return type(node) in _MAX_POOLS


def _announced_layer(node: Any) -> Any:
    if _is_max_pool(node):
        return _MaxPool(node)
    # Not layers whose weight was removed, as by `eqx.partition`; exact types only.
    if not _is_plain_layer(node) or not eqx.is_array(node.weight):
        return node
    if isinstance(node, eqx.nn.Conv):
        return _Conv(node)
    return _Linear(node) if isinstance(node, eqx.nn.Linear) else _Embedding(node)


def _take_over(new: Any, layer: Any) -> None:
    for field in dataclasses.fields(layer):
        setattr(new, field.name, getattr(layer, field.name))


def _fits(weight: Float[Array, "..."], *shape: int) -> bool:
    # Equinox does not check: a weight with more dimensions, set by hand, gives another product.
    return tuple(weight.shape) == shape


def _is_float32(x: Any, weight: Float[Array, "..."]) -> bool:
    return isinstance(x, jax.Array) and x.dtype == jnp.float32 and weight.dtype == jnp.float32
