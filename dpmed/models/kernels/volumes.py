"""Convolutions of volumes, for CPUs, on which XLA is two to ten times as fast in two dimensions as in three.

A convolution of side 3 and stride 1 is a primitive, bilinear in volumes and filters, so that its gradients can be
computed in ways of their own. What it reads is stored in memory before.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dpmed.layer_tags import is_plain
from dpmed.models.kernels.bilinear import convolution_primitive, reflected
from dpmed.models.kernels.direct import by_xla, pad_first, patches
from dpmed.models.kernels.rows import in_whole_tiles, is_narrow, multiply_rows
from dpmed.models.kernels.stored import stored, with_stored_gradient

AXES = 4
_SIDE = 3
# Up to this many channels, a volume's planes are concatenated; measured with 8 and 16 channels on two cores.
_FEW_CHANNELS = 8
# A volume of so few positions is multiplied as one matrix of patches: beside so many channels, XLA exchanges the parts
# of images and filters, which is ten times as slow (4 x 4 x 2 with 256 channels; 8 x 8 x 4 is faster by planes).
_FEW_POSITIONS = 64
# Up to this many output channels, filters' gradients are faster as products of rows of patches with three gradients.
_THIN = 16


def convolve(
    x: Float[Array, "depth height width channels_in"],
    weight: Float[Array, "first second third channels_in channels_out"],
    stride: int,
) -> Float[Array, "planes rows columns channels_out"]:
    """The cross-correlation of a zero-padded volume with filters of odd side."""
    x = stored(x)
    if weight.shape[:3] == (_SIDE,) * 3 and stride == 1 and not is_plain():
        found: Array = convolve_p.bind(x[None], weight, mirrored=False)[0]
    elif is_narrow(weight.shape, stride):
        found = multiply_rows(x, weight)
    else:
        found = _by_planes(x, weight, stride)
    return with_stored_gradient(found)


def filter_gradients(
    volumes: Float[Array, "batch depth height width channels_in"],
    gradient: Float[Array, "batch depth height width channels_out"],
) -> Float[Array, "3 3 3 channels_in channels_out"]:
    """The gradient by the filters, summed over the batch.

    A row of the filter is multiplied with the gradients of the three planes to which its plane contributes: one product
    of two matrices, of which neither is as thin as single places of the filter would make it.
    """
    depth, height, width, channels_in = volumes.shape[1:]
    channels_out = gradient.shape[-1]
    padded = jnp.pad(gradient, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    planes = jnp.concatenate([padded[:, 2 - place : 2 - place + depth] for place in range(_SIDE)], axis=-1)
    by_position = planes.reshape(-1, _SIDE * channels_out)
    around = jnp.pad(volumes, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    rows = []
    for row in range(_SIDE):
        moved = [around[:, :, row : row + height, column : column + width] for column in range(_SIDE)]
        inputs = jnp.concatenate(moved, axis=-1).reshape(-1, _SIDE * channels_in)
        rows.append((inputs.T @ by_position).reshape(_SIDE, channels_in, _SIDE, channels_out))
    return jnp.moveaxis(jnp.stack(rows), 3, 0)


def _by_planes(
    x: Float[Array, "depth height width channels_in"],
    weight: Float[Array, "first second third channels_in channels_out"],
    stride: int,
) -> Float[Array, "planes rows columns channels_out"]:
    size = weight.shape[0]
    planes = -(-x.shape[0] // stride)
    padded = pad_first(x, size // 2, 0.0) if is_plain() else jnp.pad(x, [(size // 2,) * 2, (0, 0), (0, 0), (0, 0)])
    shifted = [padded[first : first + stride * (planes - 1) + 1 : stride] for first in range(size)]
    if x.shape[-1] > _FEW_CHANNELS:
        first, *others = [by_xla(part, weight[place], stride) for place, part in enumerate(shifted)]
        return sum(others, start=first)
    # Few channels make thin matrices, so all planes that contribute to one are concatenated as channels.
    side_by_side = jnp.moveaxis(weight, 0, 2).reshape(*weight.shape[1:3], size * weight.shape[3], weight.shape[4])
    return by_xla(jnp.concatenate(shifted, axis=-1), side_by_side, stride)


def _by_patches(
    volumes: Float[Array, "batch depth height width channels_in"],
    weight: Float[Array, "3 3 3 channels_in channels_out"],
) -> Float[Array, "batch depth height width channels_out"]:
    seen = patches(volumes, weight.shape[:3], 1, volumes.shape[1:4])
    products = in_whole_tiles(seen.reshape(-1, seen.shape[-1]), weight.reshape(-1, weight.shape[-1]))
    return products.reshape(*volumes.shape[:-1], -1)


def _convolved(images: Array, weight: Array, *, mirrored: bool) -> Array:
    filters = reflected(weight) if mirrored else weight
    if math.prod(images.shape[1:4]) <= _FEW_POSITIONS:
        return _by_patches(images, filters)
    return jax.vmap(partial(_by_planes, stride=1), in_axes=(0, None))(images, filters)


def _gradient_if_thin(images: Array, gradient: Array) -> Array | None:
    return filter_gradients(images, gradient) if gradient.shape[-1] <= _THIN else None


convolve_p = convolution_primitive("convolve_3x3x3", _convolved, _gradient_if_thin)
