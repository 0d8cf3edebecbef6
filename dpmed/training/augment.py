"""Random changes to one sample and its target, inside the jitted step.

Changes that move pixels also move the target if it lies on the image's grid (a mask, an image). Changes of values
affect only the input, so an image target stays clean, as denoising requires.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Key, Num

from dpmed.config.augmentation import AugmentationConfig
from dpmed.errors import InputError

Augment = Callable[[Key[Array, ""], Float[Array, "*space channel"], Array], tuple[Array, Array]]
_PLANE = 2


def build_augmentation(config: AugmentationConfig, *, dimensions: int, moves_target: bool) -> Augment | None:
    """The random change that `config` describes; None if it changes nothing.

    Args:
        config: the augmentation.
        dimensions: spatial dimensions of an image.
        moves_target: whether the target lies on the image's grid and is moved along with it.

    Raises:
        InputError: there are more flip probabilities than axes.
    """
    if len(config.flip) > dimensions:
        raise InputError(f"has {len(config.flip)} probabilities for {dimensions} axes", where="augmentation.flip")
    if not config.is_active:
        return None

    def augment(key: Key[Array, ""], image: Array, target: Array) -> tuple[Array, Array]:
        flip_key, shift_key, resample_key, value_key = jax.random.split(key, 4)
        flips = jax.random.bernoulli(flip_key, jnp.asarray([*config.flip, 0.0]))
        shifts = jax.random.randint(shift_key, (dimensions,), -config.shift, config.shift + 1)
        places = _places(config, resample_key, image.shape[:dimensions]) if config.resamples else None

        def move(grid: Array) -> Array:
            for axis in range(len(config.flip)):
                grid = jnp.where(flips[axis], jnp.flip(grid, axis), grid)
            if config.shift:
                grid = _shift(grid, shifts, config.shift)
            return grid if places is None else _resample(grid, places)

        changed = _change_values(config, value_key, move(image))
        return changed, move(target) if moves_target else target

    return augment


def _change_values(config: AugmentationConfig, key: Key[Array, ""], image: Array) -> Array:
    contrast_key, brightness_key, noise_key = jax.random.split(key, 3)
    if config.contrast:
        factor = 1.0 + config.contrast * jax.random.uniform(contrast_key, (), minval=-1.0)
        mean = jnp.mean(image)
        image = mean + factor * (image - mean)
    if config.brightness:
        image = image + config.brightness * jax.random.uniform(brightness_key, (), minval=-1.0)
    if config.noise:
        image = image + config.noise * jax.random.normal(noise_key, image.shape, image.dtype)
    return image


def _shift(grid: Array, shifts: Array, largest: int) -> Array:
    dimensions = shifts.shape[0]
    padding = [(largest, largest)] * dimensions + [(0, 0)] * (grid.ndim - dimensions)
    starts = [shifts[axis] + largest for axis in range(dimensions)] + [0] * (grid.ndim - dimensions)
    return jax.lax.dynamic_slice(jnp.pad(grid, padding, mode="edge"), starts, grid.shape)


def _places(config: AugmentationConfig, key: Key[Array, ""], space: tuple[int, ...]) -> Float[Array, " axis *space"]:
    """For each voxel of the result, the position in the image that it is taken from."""
    angle_key, size_key, corner_key = jax.random.split(key, 3)
    angle = math.radians(config.rotation) * jax.random.uniform(angle_key, (), minval=-1.0)
    share = config.crop + (1.0 - config.crop) * jax.random.uniform(size_key)
    # A crop's centre is placed so that the crop stays inside the image.
    free = (1.0 - share) * (jax.random.uniform(corner_key, (len(space),)) - 0.5)
    sides = [jnp.arange(side, dtype=jnp.float32) - (side - 1) / 2 for side in space]
    grid = [share * axis for axis in jnp.meshgrid(*sides, indexing="ij")]
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    first, second = grid[:_PLANE]
    grid[:_PLANE] = [cosine * first - sine * second, sine * first + cosine * second]
    return jnp.stack(
        [axis + (side - 1) / 2 + free[n] * side for n, (axis, side) in enumerate(zip(grid, space, strict=True))]
    )


def _resample(grid: Num[Array, "..."], places: Float[Array, " axis *space"]) -> Num[Array, "..."]:
    """Linear interpolation for an image, the nearest pixel for a mask; beyond the border, edge pixels are repeated."""
    coordinates = list(places)
    if jnp.issubdtype(grid.dtype, jnp.floating):
        return jax.vmap(
            lambda channel: map_coordinates(channel, coordinates, order=1, mode="nearest"), in_axes=-1, out_axes=-1
        )(grid)
    # Class numbers are exact in float32, the type of the interpolation weights.
    nearest = map_coordinates(grid.astype(jnp.float32), coordinates, order=0, mode="nearest")
    return nearest.astype(grid.dtype)
