"""Two-dimensional convolutions of side 3 and stride 1 with fewer multiplications, for CPUs.

Winograd's F(2 × 2, 3 × 3): a block of 2 × 2 outputs depends on a tile of 4 × 4 inputs. Sums and differences of a tile's
numbers, and of a filter's, are multiplied at 16 places, where the definition takes 4 · 9 products; so the matrix
products over channels, in which XLA's CPU compiler already uses all that the machine has, shrink by a factor of 2.25.
Rounding errors are about those of the definition, but relative to the largest numbers of a tile.

The convolution is one primitive, bilinear in images and filters. How it is computed is decided when the program is
lowered, since only then the size of the batch is known. On other devices, and where it would not pay, it is XLA's
convolution.

Source: Lavin and Gray (2016), "Fast algorithms for convolutional neural networks", section 4.1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dpmed.models.kernels.bilinear import channels_out, convolution_primitive, reflected
from dpmed.models.kernels.direct import by_xla
from dpmed.runtime.jit import is_cpu

SIDE = 3
# Below these, the transforms take longer than they save, on two cores (`python -m tests.benchmarks convolve`).
_FEWEST_CHANNELS = 64
_FEWEST_TILES = 128
_FEWEST_TILES_OF_RECORD = 256
_FEWEST_TILES_OF_SUM = 64
# Sums in float64 are taken over so many tiles at a time, which limits their errors whatever the size of the batch.
_TILES_OF_BLOCK = 512
# ‖|G|‖² ‖|A|‖² ‖|B|‖² times 2, since each pixel lies in at most four tiles: how much larger the sums of magnitudes in
# `filter_gradients` may be than ‖images‖ ‖gradient‖ (spectral norms of the transforms' magnitudes).
_MAGNIFICATION = 121.0


def convolve(
    images: Float[Array, "batch height width channels_in"], weight: Float[Array, "3 3 channels_in channels_out"]
) -> Float[Array, "batch height width channels_out"]:
    """The cross-correlation of zero-padded images with filters, both float32."""
    found: Array = convolve_p.bind(images, weight, mirrored=False)
    return found


def filter_gradients(
    images: Float[Array, "record view height width channels_in"],
    gradient: Float[Array, "record view height width channels_out"],
) -> Float[Array, "record 3 3 channels_in channels_out"]:
    """For each record, the gradient by the filters, summed over its views.

    Args:
        images: what was convolved.
        gradient: the gradient by the convolution's results.
    """
    records = len(images)
    tiles = _input_tiles(images.reshape(-1, *images.shape[2:]))
    blocks = _gradient_tiles(gradient.reshape(-1, *gradient.shape[2:]))
    tiles, blocks = _apart((tiles, blocks))
    products = [
        jnp.einsum("inpc,inpk->inck", _by_record(tile, records), _by_record(block, records))
        for tile, block in zip(tiles, blocks, strict=True)
    ]
    columns = jnp.stack(_filter_places(products))
    places = _filter_places([columns[:, row] for row in range(4)])
    return jnp.moveaxis(jnp.stack(places), (0, 1), (1, 2))


def pays(images: Sequence[int], channels_out: int) -> bool:
    """Whether images `(batch, height, width, channels)` are convolved faster in this way."""
    batch, height, width, channels_in = images
    tiles = batch * _halved(height) * _halved(width)
    return min(channels_in, channels_out) >= _FEWEST_CHANNELS and tiles >= _FEWEST_TILES


def gradients_pay(images: Sequence[int], channels_out: int) -> bool:
    """Whether `filter_gradients` is faster for images `(record, view, height, width, channels)`."""
    _, views, *image = images
    return min(images[-1], channels_out) >= _FEWEST_CHANNELS and views * _tiles_of(image) >= _FEWEST_TILES_OF_RECORD


def summed_filter_gradients(
    images: Float[Array, "image height width channels_in"], gradient: Float[Array, "image height width channels_out"]
) -> Float[Array, "3 3 channels_in channels_out"]:
    """The gradient by the filters, summed over the images; meant for float64, where `rounding` bounds its errors."""
    number, *image = images.shape
    blocks, each = _blocks(number, image)
    # Images of zeros add exact zeros.
    missing = ((0, blocks * each - number), (0, 0), (0, 0), (0, 0))
    by_block = [jnp.pad(one, missing).reshape(blocks, each, *one.shape[1:]) for one in (images, gradient)]
    first, *others = filter_gradients(*by_block)
    return sum(others, start=first)


def sums_pay(images: Sequence[int], channels_out: int) -> bool:
    """Whether `summed_filter_gradients` is faster for images `(image, height, width, channels)` in float64."""
    number, *image = images
    return min(images[-1], channels_out) >= _FEWEST_CHANNELS and number * _tiles_of(image) >= _FEWEST_TILES_OF_SUM


def rounding(images: Sequence[int]) -> float:
    """A bound on errors of `summed_filter_gradients` for images `(image, height, width, channels)`.

    In L2 norm, the error is at most this times u Σ ‖image‖ ‖its gradient‖ with the unit roundoff u, in any order of
    summation within blocks and over them, except for terms of the order u². A product's factors are rounded at most
    twice each, the product once, then as many products are added as a block has tiles, transforming back rounds four
    times, and blocks are added. A tile lies in one image, so no image is multiplied with the gradient of another.

    Source: Higham (2002), section 3.1, with the transforms' magnitudes.
    """
    number, *image = images
    blocks, each = _blocks(number, image)
    return _MAGNIFICATION * (each * _tiles_of(image) + 10 + blocks)


def _blocks(images: int, image: Sequence[int]) -> tuple[int, int]:
    """How many blocks are summed apart, and of how many images each."""
    blocks = -(-images // max(1, _TILES_OF_BLOCK // _tiles_of(image)))
    return blocks, -(-images // blocks)


def _tiles_of(image: Sequence[int]) -> int:
    height, width, _ = image
    return _halved(height) * _halved(width)


# Transforms are separable. Along columns their results are lists, as these go into different matrix products; along
# rows they have an axis in front, so that four products are one operation and there are fewer loops to compile.
# Barriers keep XLA from computing transformed numbers anew for each use.


def _convolved(
    images: Float[Array, "batch height width channels_in"], weight: Float[Array, "3 3 _ _"], *, mirrored: bool
) -> Float[Array, "batch height width channels_out"]:
    batch, height, width, _ = images.shape
    tiles = _apart(_input_tiles(images))
    filters = _apart(_filter_tiles(weight, mirrored=mirrored))
    channels = "ipk,ick->ipc" if mirrored else "ipc,ick->ipk"
    products = [
        jnp.einsum(channels, tile.reshape(4, -1, tile.shape[-1]), chosen)
        for tile, chosen in zip(tiles, filters, strict=True)
    ]
    space = (4, batch, _halved(height), _halved(width), channels_out(weight, mirrored=mirrored))
    products = _apart([one.reshape(space) for one in products])
    columns = _apart(_outputs(products))
    blocks = jnp.stack([jnp.stack(_outputs(list(column)), axis=2) for column in columns], axis=4)
    doubled = blocks.reshape(batch, 2 * space[2], 2 * space[3], space[4])
    return doubled[:, :height, :width]


def _input_tiles(
    images: Float[Array, "batch height width channels"],
) -> list[Float[Array, "4 batch rows columns channels"]]:
    """Bᵀ d B for each tile d of the padded images."""

    def transformed(first: Array, second: Array, third: Array, fourth: Array) -> list[Array]:
        return [first - third, second + third, third - second, second - fourth]

    return _tiles(images, transformed, border=1)


def _filter_tiles(
    weight: Float[Array, "3 3 channels_in channels_out"], *, mirrored: bool
) -> list[Float[Array, "4 channels_in channels_out"]]:
    """G g Gᵀ for the filters g; for mirrored filters two of its rows and columns change places.

    So filters are transformed as they lie in memory: read across it, this takes five times as long.
    """

    def transformed(first: Array, second: Array, third: Array) -> list[Array]:
        outer = first + third
        begin, end = (third, first) if mirrored else (first, third)
        return [begin, 0.5 * (outer + second), 0.5 * (outer - second), end]

    columns = transformed(*(weight[:, place] for place in range(SIDE)))
    return [jnp.stack(transformed(*column)) for column in columns]


def _gradient_tiles(
    gradient: Float[Array, "batch height width channels"],
) -> list[Float[Array, "4 batch rows columns channels"]]:
    """A d Aᵀ for each block d of the gradient by the results."""

    def transformed(first: Array, second: Array) -> list[Array]:
        return [first, first + second, first - second, -second]

    return _tiles(gradient, transformed, border=0)


def _tiles(
    images: Float[Array, "batch height width channels"], transformed: Callable[..., list[Array]], *, border: int
) -> list[Float[Array, "4 batch rows columns channels"]]:
    """Each block of 2 × 2 with a border of this width, transformed in both directions."""
    _, height, width, _ = images.shape
    rows, columns = _halved(height), _halved(width)
    padding = ((0, 0), (border, 2 * rows - height + border), (border, 2 * columns - width + border), (0, 0))
    places = range(2 + 2 * border)
    padded = jnp.pad(images, padding)
    by_row = _apart(jnp.stack(transformed(*(_every_second(padded, 1, start, rows) for start in places))))
    return transformed(*(_every_second(by_row, 3, start, columns) for start in places))


def _outputs(values: Sequence[Array]) -> list[Array]:
    """Aᵀ m along one direction."""
    first, second, third, fourth = values
    return [first + second + third, second - third - fourth]


def _filter_places(values: Sequence[Array]) -> list[Array]:
    """Gᵀ m along one direction."""
    first, second, third, fourth = values
    return [first + 0.5 * (second + third), 0.5 * (second - third), 0.5 * (second + third) + fourth]


def _apart(values: Any) -> Any:
    return jax.lax.optimization_barrier(values)  # type: ignore[no-untyped-call] # jax gives it no types


def _every_second(values: Array, axis: int, start: int, number: int) -> Array:
    return jax.lax.slice_in_dim(values, start, start + 2 * number - 1, 2, axis)


def _by_record(
    tile: Float[Array, "4 batch rows columns channels"], records: int
) -> Float[Array, "4 record tile channels"]:
    return tile.reshape(4, records, -1, tile.shape[-1])


def _halved(side: int) -> int:
    return -(-side // 2)


def _by_xla(images: Array, weight: Array, *, mirrored: bool = False) -> Array:
    return by_xla(images, reflected(weight) if mirrored else weight, 1)


def _faster(images: Array, weight: Array, *, mirrored: bool) -> Array:
    known = pays(images.shape, channels_out(weight, mirrored=mirrored))
    return (_convolved if known else _by_xla)(images, weight, mirrored=mirrored)


def _gradient_if_it_pays(images: Array, gradient: Array) -> Array | None:
    if not is_cpu() or not gradients_pay((1, *images.shape), gradient.shape[-1]):
        return None
    found: Array = filter_gradients(images[None], gradient[None])[0]
    return found


# The convolution of `convolve`, as JAX's transformations see it.
convolve_p = convolution_primitive("convolve_3x3", _by_xla, _gradient_if_it_pays, on_cpu=_faster)
