"""What convolutions are made of: XLA's, patches, and sums over the places of a filter; images have channels last."""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def by_xla(
    x: Float[Array, "batch *space channels_in"], weight: Float[Array, "*kernel channels_in channels_out"], stride: int
) -> Float[Array, "batch *out channels_out"]:
    """The cross-correlation of images, zero-padded by half of the filter's odd side, by one operation of XLA."""
    dimensions = x.ndim - 2
    space = "DHW"[-dimensions:]
    padding = [(side // 2, side // 2) for side in weight.shape[:-2]]
    layout = (f"N{space}C", f"{space}IO", f"N{space}C")
    return jax.lax.conv_general_dilated(x, weight, (stride,) * dimensions, padding, dimension_numbers=layout)


def pad_first(x: Float[Array, " first *others"], width: int, value: float) -> Float[Array, " padded *others"]:
    """`x` padded by `width` layers of a constant along its first axis; concatenation suits converters better."""
    layers = jnp.full((width, *x.shape[1:]), value, x.dtype)
    return jnp.concatenate([layers, x, layers]) if width else x


def patches(
    images: Float[Array, "batch *space channels"], kernel: tuple[int, ...], stride: int, out: tuple[int, ...]
) -> Float[Array, "batch *out kernel_times_channels"]:
    """The filter's input at each position; positions in the filter vary more slowly than channels."""
    padded = jnp.pad(images, [(0, 0), *((side // 2, side // 2) for side in kernel), (0, 0)])
    places = itertools.product(*map(range, kernel))
    shifted = [
        padded[
            :, *(slice(first, first + stride * (side - 1) + 1, stride) for first, side in zip(place, out, strict=True))
        ]
        for place in places
    ]
    return jnp.concatenate(shifted, axis=-1)


def summed_over_places(
    values: Float[Array, "..."], kernel: tuple[int, ...], times: int, *, stride: int = 1
) -> Float[Array, "..."]:
    """The sum over the filter's places of `values` `(view, *space)`, repeated `times`, all moved by the same offset."""
    widths = [(0, 0), *((side // 2, side // 2) for side in kernel)] * times
    padded = jnp.pad(values, widths)
    steps = (1, *[stride] * len(kernel)) * times
    moved = [
        padded[
            tuple(
                slice(first, first + count, step)
                for first, count, step in zip((0, *place) * times, values.shape, steps, strict=True)
            )
        ]
        for place in itertools.product(*map(range, kernel))
    ]
    return sum(moved[1:], start=moved[0])
