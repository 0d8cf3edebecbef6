"""Convolutions for one sample, channels last, in any number of spatial dimensions.

`convolve` is the only place where filters are applied to images; how its gradients are computed can be changed here
without affecting any model.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from dpmed.layer_tags import RecordGradients, is_plain, multiply
from dpmed.models.initial import filled, normal
from dpmed.models.kernels import volumes, winograd
from dpmed.models.kernels.direct import by_xla, patches, summed_over_places
from dpmed.models.kernels.rows import is_narrow, multiply_rows
from dpmed.runtime.jit import is_cpu

Kind = Literal["plain", "standardised", "centred"]

# Keeps weight standardisation finite for a filter with equal weights.
_SMALLEST_STD = 1e-5

# Limits for processing images one at a time: estimates, not tuned.
_MANY_POSITIONS = 4096
_MOST_UNROLLED = 16


def convolve(
    x: Float[Array, "*space channels_in"], weight: Float[Array, "*kernel channels_in channels_out"], *, stride: int = 1
) -> Float[Array, "*out channels_out"]:
    """The cross-correlation of a zero-padded image with filters.

    Args:
        x: one image.
        weight: filters of odd side.
        stride: step in each dimension.

    Returns:
        An image of side `ceil(side / stride)` in each dimension, as with torch's `padding = side // 2` for odd filters.
    """
    if x.ndim == volumes.AXES and (is_plain() or is_cpu()):
        return volumes.convolve(x, weight, stride)
    if is_narrow(weight.shape, stride):
        return multiply_rows(x, weight)
    if _is_known(weight.shape[:-2], stride) and x.dtype == jnp.float32 and not is_plain():
        return winograd.convolve(x[None], weight)[0]
    return by_xla(x[None], weight, stride)[0]


def _is_known(kernel: tuple[int, ...], stride: int) -> bool:
    """Whether `dpmed.models.kernels.winograd` knows such convolutions."""
    return kernel == (winograd.SIDE, winograd.SIDE) and stride == 1


def centre(
    weight: Float[Array, "*kernel channels_in channels_out"],
) -> Float[Array, "*kernel channels_in channels_out"]:
    """The filters minus their mean over kernel and input channels."""
    axes = tuple(range(weight.ndim - 1))
    return weight - jnp.mean(weight, axis=axes, keepdims=True)


def standardise(
    weight: Float[Array, "*kernel channels_in channels_out"],
) -> Float[Array, "*kernel channels_in channels_out"]:
    """The filters with mean 0 and standard deviation 1 over kernel and input channels (Qiao et al., 2019, eq. 5)."""
    centred = centre(weight)
    axes = tuple(range(weight.ndim - 1))
    variance = jnp.mean(jnp.square(centred), axis=axes, keepdims=True)
    return centred / jnp.sqrt(variance + _SMALLEST_STD**2)


_KINDS: dict[str, Callable[[Array], Array]] = {
    "plain": lambda weight: weight,
    "centred": centre,
    "standardised": standardise,
}


@dataclass(frozen=True)
class ConvolutionProduct:
    """A convolution as a matrix product of the patches that the filters see (Chellapilla et al., 2006).

    Attributes:
        kernel: the filters' sides.
        stride: step in each dimension.
        kind: what is done to the weight before use.
    """

    kernel: tuple[int, ...]
    stride: int
    kind: Kind

    def apply(self, x: Array, weight: Array) -> Array:
        """The convolution of one image."""
        # Standardised in the weight's own type, whatever that of the product.
        filters = _KINDS[self.kind](weight).astype(x.dtype)
        return convolve(x, filters.reshape(*self.kernel, x.shape[-1], -1), stride=self.stride)

    def columns(self, x: Array) -> Array | None:
        """The patches. For centred filters, whose gradient is also centred, each patch minus its mean."""
        if self.kind == "standardised":
            return None
        out = [-(-side // self.stride) for side in x.shape[:-1]]
        seen = patches(x[None], self.kernel, self.stride, tuple(out)).reshape(math.prod(out), -1)
        return seen - jnp.mean(seen, axis=1, keepdims=True) if self.kind == "centred" else seen

    def gram(self, x: Array) -> Array | None:
        """Products of pixels, summed over the places of the filter, for strides of one.

        Each pair of pixels is multiplied once, not once for each place at which patches contain both.
        """
        if self.stride > 1 or self.kind == "standardised":
            return None
        views, *space, channels = x.shape
        rows = x.reshape(-1, channels)
        pairs = (rows @ rows.T).reshape(views, *space, views, *space)
        found = summed_over_places(pairs, self.kernel, 2).reshape(len(rows), -1)
        if self.kind == "plain":
            return found
        inputs = math.prod(self.kernel) * channels
        sums = self._patch_sums(x).reshape(-1)
        return found - jnp.outer(sums, sums / inputs)

    def rounding(self, x: Sequence[int], channels: int) -> float:
        """Winograd's way rounds more than products of patches; means of centred filters are sums of their own."""
        _, views, *space, inputs = x
        places = math.prod(self.kernel)
        positions = views * math.prod(-(-side // self.stride) for side in space)
        # A's length is taken to be √places ‖x‖.
        fast = self._is_summed_fast(x, channels)
        found = winograd.rounding(x[1:]) / math.sqrt(places) if fast else positions
        return float(found + (positions + inputs + places + 6 if self.kind == "centred" else 0))

    def _is_summed_fast(self, x: Sequence[int], channels: int) -> bool:
        """Whether the sum over the views of one record is computed in Winograd's way in float64."""
        return self._is_fast() and x[0] == 1 and winograd.sums_pay(x[1:], channels)

    def _is_fast(self) -> bool:
        return _is_known(self.kernel, self.stride) and is_cpu()

    def gradients(self, x: Array, gradient: Array, weight: Array) -> RecordGradients:
        """For each record, the patches times the gradient of the output, both over all views."""
        if self.kind == "standardised":
            _, pull_back = jax.vjp(standardise, weight)
            return RecordGradients(jax.vmap(lambda one: pull_back(one)[0])(self._plain_gradients(x, gradient, weight)))
        found = self._plain_gradients(x, gradient, weight)
        return RecordGradients(found, self._means(x, gradient) if self.kind == "centred" else None)

    def _means(self, x: Array, gradient: Array) -> Array:
        """The means of each output channel's gradients, from the patches' means."""
        channels = gradient.shape[-1]
        sums = self._patch_sums(x.reshape(-1, *x.shape[2:])).reshape(len(x), -1)
        found = jnp.einsum("np,npc->nc", sums, gradient.reshape(len(x), -1, channels))
        inputs = math.prod(self.kernel) * x.shape[-1]
        return (found / inputs).reshape(len(x), *([1] * (x.ndim - 2)), channels)

    def _patch_sums(self, images: Array) -> Array:
        """For each image, the sum over the patch at each position."""
        return summed_over_places(jnp.sum(images, axis=-1), self.kernel, 1, stride=self.stride)

    def _plain_gradients(self, x: Array, gradient: Array, weight: Array) -> Array:
        batch, views, *out, channels = gradient.shape
        if x.dtype == jnp.float64 and self._is_summed_fast(x.shape, channels):
            return winograd.summed_filter_gradients(x[0], gradient[0])[None]
        if self._is_fast() and x.dtype == jnp.float32 and winograd.gradients_pay(x.shape, channels):
            return winograd.filter_gradients(x, gradient)
        if batch * views <= _MOST_UNROLLED and math.prod(out) >= _MANY_POSITIONS:
            # Patches of large images do not fit into the cache, and one such image keeps all cores busy.
            by_images = partial(replace(self, kind="plain")._by_images, weight)
            if not is_cpu():
                # One operation for all records: XLA may choose another algorithm, with other bits, for each of several.
                found: Array = jax.lax.map(by_images, (x, gradient))
                return found
            return jnp.stack([by_images((x[place], gradient[place])) for place in range(batch)])
        images = x.reshape(batch * views, *x.shape[2:])
        columns = patches(images, self.kernel, self.stride, tuple(out)).reshape(batch, views * math.prod(out), -1)
        by_position = gradient.reshape(batch, -1, channels)
        return jnp.einsum("npk,npc->nkc", columns, by_position).reshape(batch, *weight.shape)

    def _by_images(self, weight: Array, one: tuple[Array, Array]) -> Array:
        """One record's gradient, from its inputs and its output gradients, by XLA's convolution."""
        x, gradient = one
        _, pull_back = jax.vjp(lambda weight: jax.vmap(self.apply, in_axes=(0, None))(x, weight), weight)
        return pull_back(gradient)[0]


class Convolution(eqx.Module):
    """A convolution that keeps the image's size (at stride one).

    Attributes:
        weight: `(*kernel, channels_in, channels_out)`.
        bias: `(channels_out,)`, initially zero; None for none, as before a normalisation.
        kind: what is done to the weight before use.
        stride: step in each dimension.
    """

    weight: Float[Array, "*kernel channels_in channels_out"]
    bias: Float[Array, " channels_out"] | None
    kind: Kind = eqx.field(static=True)
    stride: int = eqx.field(static=True)

    def __init__(  # noqa: PLR0913 properties of a convolution, by keyword
        self,
        channels_in: int,
        channels_out: int,
        *,
        dimensions: int,
        key: PRNGKeyArray,
        size: int = 3,
        kind: Kind = "plain",
        stride: int = 1,
        bias: bool = False,
    ) -> None:
        """Normal weights of standard deviation sqrt(2 / fan-in) (He et al., 2015)."""
        shape = (*([size] * dimensions), channels_in, channels_out)
        self.weight = normal(key, shape, std=math.sqrt(2 / (size**dimensions * channels_in)))
        self.bias = filled(channels_out, 0.0) if bias else None
        self.kind = kind
        self.stride = stride

    def __call__(self, x: Float[Array, "*space channels_in"]) -> Float[Array, "*out channels_out"]:
        """The convolution of `x` with zero padding."""
        y = multiply(x, self.weight, ConvolutionProduct(self.weight.shape[:-2], self.stride, self.kind))
        return y if self.bias is None else y + self.bias.reshape((1,) * (y.ndim - 1) + (-1,))


class UpConvolution(eqx.Module):
    """A transposed convolution of side and stride two: each voxel becomes a block of `2**dimensions`.

    Attributes:
        weight: `(channels_in, 2**dimensions * channels_out)`; the offset in the block varies more slowly than the
            channel.
        bias: `(channels_out,)`, initially zero.
    """

    weight: Float[Array, "channels_in block_times_channels_out"]
    bias: Float[Array, " channels_out"]

    def __init__(self, channels_in: int, channels_out: int, *, dimensions: int, key: PRNGKeyArray) -> None:
        """Normal weights of standard deviation 1 / sqrt(channels_in): blocks do not overlap."""
        shape = (channels_in, 2**dimensions * channels_out)
        self.weight = normal(key, shape) / math.sqrt(channels_in)
        self.bias = filled(channels_out, 0.0)

    def __call__(self, x: Float[Array, "*space channels_in"]) -> Float[Array, "*double channels_out"]:
        """`x` at twice the size."""
        blocks = multiply(x, self.weight, ConvolutionProduct((1,) * (x.ndim - 1), 1, "plain"))
        doubled = self.spread(blocks)
        return doubled + self.bias.reshape((1,) * (x.ndim - 1) + (-1,))

    def spread(self, blocks: Float[Array, "*space block_times_channels"]) -> Float[Array, "*double channels_out"]:
        """The image in which the channels of each position are rearranged as a block of voxels."""
        *space, _ = blocks.shape
        dimensions = len(space)
        blocks = blocks.reshape(*space, *([2] * dimensions), self.bias.shape[0])
        # (side, …, 2, …, channel) -> (side, 2, side, 2, …, channel)
        pairs = [axis for side in range(dimensions) for axis in (side, dimensions + side)]
        mixed = blocks.transpose(*pairs, 2 * dimensions)
        return mixed.reshape(*[2 * side for side in space], -1)
