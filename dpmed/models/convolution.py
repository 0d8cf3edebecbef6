"""Convolutions for one sample, channels last, in any number of spatial dimensions.

`convolve` is the one place where a filter meets an image; how its gradients are computed can be changed here without
any model knowing.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, PRNGKeyArray

Kind = Literal["plain", "standardised", "centred"]

# Keeps weight standardisation finite for a filter of equal weights.
_SMALLEST_STD = 1e-5

_VOLUME_AXES = 4
# Where one way of computing becomes faster than another, measured on two cores (`python -m tests.benchmarks step`).
_FEW_CHANNELS = 8
_MANY_POSITIONS = 4096
_MOST_UNROLLED = 16


def convolve(
    x: Float[Array, "*space channels_in"], weight: Float[Array, "*kernel channels_in channels_out"], *, stride: int = 1
) -> Float[Array, "*out channels_out"]:
    """The cross-correlation of an image with filters, zeros around it.

    Args:
        x: one image.
        weight: filters of odd side.
        stride: step in each dimension.

    Returns:
        `ceil(side / stride)` in each dimension: as torch's `padding = side // 2` gives for odd filters.
    """
    return _convolve(x, weight, stride)


def _plain(
    x: Float[Array, "*space channels_in"], weight: Float[Array, "*kernel channels_in channels_out"], stride: int
) -> Float[Array, "*out channels_out"]:
    if x.ndim == _VOLUME_AXES and jax.default_backend() == "cpu":
        return _by_planes(x, weight, stride)
    return _by_xla(x[None], weight, stride)[0]


def _by_xla(
    x: Float[Array, "batch *space channels_in"], weight: Float[Array, "*kernel channels_in channels_out"], stride: int
) -> Float[Array, "batch *out channels_out"]:
    dimensions = x.ndim - 2
    space = "DHW"[-dimensions:]
    padding = [(side // 2, side // 2) for side in weight.shape[:-2]]
    layout = (f"N{space}C", f"{space}IO", f"N{space}C")
    return jax.lax.conv_general_dilated(x, weight, (stride,) * dimensions, padding, dimension_numbers=layout)


def _by_planes(
    x: Float[Array, "depth height width channels_in"],
    weight: Float[Array, "first second third channels_in channels_out"],
    stride: int,
) -> Float[Array, "planes rows columns channels_out"]:
    """A volume's convolution as those of its planes: XLA on the CPU is two to ten times as fast in two dimensions."""
    size = weight.shape[0]
    planes = -(-x.shape[0] // stride)
    padded = jnp.pad(x, [(size // 2, size // 2), (0, 0), (0, 0), (0, 0)])
    shifted = [padded[first : first + stride * (planes - 1) + 1 : stride] for first in range(size)]
    if x.shape[-1] > _FEW_CHANNELS:
        first, *others = [_by_xla(part, weight[place], stride) for place, part in enumerate(shifted)]
        return sum(others, start=first)
    # Few channels make thin matrices: all planes that meet in one are put side by side as channels.
    side_by_side = jnp.moveaxis(weight, 0, 2).reshape(*weight.shape[1:3], size * weight.shape[3], weight.shape[4])
    return _by_xla(jnp.concatenate(shifted, axis=-1), side_by_side, stride)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: Array, weight: Array, stride: int) -> Array:
    return _plain(x, weight, stride)


def _forward(x: Array, weight: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _plain(x, weight, stride), (x, weight)


def _backward(stride: int, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, weight = kept
    (by_image,) = jax.linear_transpose(lambda image: _plain(image, weight, stride), x)(gradient)
    return by_image, _weight_gradient(weight.shape[:-2], stride)(x, gradient)


_convolve.defvjp(_forward, _backward)


@cache
def _weight_gradient(kernel: tuple[int, ...], stride: int) -> Callable[[Array, Array], Array]:
    """The gradient by the filters: of one image as XLA does it, of a batch of images by a matrix product each.

    `vmap` would turn the former into a grouped convolution, for which XLA on the CPU has no fast way. The gradient is
    the product of the image's patches, `(positions, kernel x channels in)`, with the output's gradient,
    `(positions, channels out)` (Chellapilla et al., 2006).
    """

    @custom_vmap
    def by_filters(x: Array, gradient: Array) -> Array:
        like = jnp.zeros((*kernel, x.shape[-1], gradient.shape[-1]), x.dtype)
        (found,) = jax.linear_transpose(lambda weight: _plain(x, weight, stride), like)(gradient)
        return found

    @by_filters.def_vmap  # type: ignore[untyped-decorator] # jax's
    def of_batch(size: int, batched: Sequence[bool], x: Array, gradient: Array) -> tuple[Array, bool]:
        images, gradients = (
            leaf if own else jnp.broadcast_to(leaf, (size, *leaf.shape))
            for leaf, own in zip((x, gradient), batched, strict=True)
        )
        channels_out = gradients.shape[-1]
        if size <= _MOST_UNROLLED and math.prod(gradients.shape[1:-1]) >= _MANY_POSITIONS:
            # Patches of large images do not fit the cache, and one such image keeps all cores busy.
            return jnp.stack([by_filters(images[place], gradients[place]) for place in range(size)]), True
        by_position = gradients.reshape(size, -1, channels_out)
        columns = _patches(images, kernel, stride, gradients.shape[1:-1]).reshape(size, by_position.shape[1], -1)
        found = jnp.einsum("npk,npc->nkc", columns, by_position)
        return found.reshape(size, *kernel, images.shape[-1], channels_out), True

    return by_filters  # type: ignore[no-any-return] # jax's


def _patches(
    images: Float[Array, "batch *space channels"], kernel: tuple[int, ...], stride: int, out: tuple[int, ...]
) -> Float[Array, "batch *out kernel_times_channels"]:
    """What the filter sees at each position, places in the filter varying slower than channels."""
    padded = jnp.pad(images, [(0, 0), *((side // 2, side // 2) for side in kernel), (0, 0)])
    places = itertools.product(*map(range, kernel))
    shifted = [
        padded[
            :, *(slice(first, first + stride * (side - 1) + 1, stride) for first, side in zip(place, out, strict=True))
        ]
        for place in places
    ]
    return jnp.concatenate(shifted, axis=-1)


def centre(
    weight: Float[Array, "*kernel channels_in channels_out"],
) -> Float[Array, "*kernel channels_in channels_out"]:
    """Filters whose mean over kernel and input channels is zero."""
    axes = tuple(range(weight.ndim - 1))
    return weight - jnp.mean(weight, axis=axes, keepdims=True)


def standardise(
    weight: Float[Array, "*kernel channels_in channels_out"],
) -> Float[Array, "*kernel channels_in channels_out"]:
    """Filters of mean 0 and standard deviation 1 over kernel and input channels (Qiao et al., 2019, eq. 5)."""
    centred = centre(weight)
    axes = tuple(range(weight.ndim - 1))
    variance = jnp.mean(jnp.square(centred), axis=axes, keepdims=True)
    return centred / jnp.sqrt(variance + _SMALLEST_STD**2)


class Convolution(eqx.Module):
    """A convolution that keeps the image's size (at stride one).

    Attributes:
        weight: `(*kernel, channels_in, channels_out)`.
        bias: `(channels_out,)`, zero at first; None for none, as before a normalisation.
        kind: what is done to the weight before use.
        stride: step in each dimension.
    """

    weight: Float[Array, "*kernel channels_in channels_out"]
    bias: Float[Array, " channels_out"] | None
    kind: Kind = eqx.field(static=True)
    stride: int = eqx.field(static=True)

    def __init__(  # noqa: PLR0913 what describes a convolution, by keyword
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
        self.weight = math.sqrt(2 / (size**dimensions * channels_in)) * jax.random.normal(key, shape, jnp.float32)
        self.bias = jnp.zeros(channels_out, jnp.float32) if bias else None
        self.kind = kind
        self.stride = stride

    def __call__(self, x: Float[Array, "*space channels_in"]) -> Float[Array, "*out channels_out"]:
        """The convolution of `x`, zeros around it."""
        weight = self.weight
        if self.kind == "centred":
            weight = centre(weight)
        elif self.kind == "standardised":
            weight = standardise(weight)
        y = convolve(x, weight, stride=self.stride)
        return y if self.bias is None else y + self.bias.reshape((1,) * (y.ndim - 1) + (-1,))


class UpConvolution(eqx.Module):
    """A transposed convolution of side and stride two: each voxel becomes a block of `2**dimensions`.

    Attributes:
        weight: `(channels_in, 2**dimensions * channels_out)`; the offset in the block varies slower than the channel.
        bias: `(channels_out,)`, zero at first.
    """

    weight: Float[Array, "channels_in block_times_channels_out"]
    bias: Float[Array, " channels_out"]

    def __init__(self, channels_in: int, channels_out: int, *, dimensions: int, key: PRNGKeyArray) -> None:
        """Normal weights of standard deviation 1 / sqrt(channels_in): blocks do not overlap."""
        shape = (channels_in, 2**dimensions * channels_out)
        self.weight = jax.random.normal(key, shape, jnp.float32) / math.sqrt(channels_in)
        self.bias = jnp.zeros(channels_out, jnp.float32)

    def __call__(self, x: Float[Array, "*space channels_in"]) -> Float[Array, "*double channels_out"]:
        """`x` at twice the size."""
        *space, _ = x.shape
        dimensions = len(space)
        blocks = convolve(x, self.weight.reshape((1,) * dimensions + self.weight.shape))
        blocks = blocks.reshape(*space, *([2] * dimensions), self.bias.shape[0])
        # (side, …, 2, …, channel) -> (side, 2, side, 2, …, channel)
        pairs = [axis for side in range(dimensions) for axis in (side, dimensions + side)]
        mixed = blocks.transpose(*pairs, 2 * dimensions)
        doubled = mixed.reshape(*[2 * side for side in space], -1)
        return doubled + self.bias.reshape((1,) * dimensions + (-1,))
