"""Random changes of one sample and its target, inside the jitted step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from dpmed.config.augmentation import AugmentationConfig
from dpmed.errors import InputError

Augment = Callable[[Key[Array, ""], Float[Array, "*space channel"], Array], tuple[Array, Array]]


def build_augmentation(config: AugmentationConfig, *, dimensions: int, moves_target: bool) -> Augment | None:
    """The random change that `config` describes; None when it changes nothing.

    Args:
        config: the `[augmentation]` table.
        dimensions: spatial dimensions of an image.
        moves_target: whether the target lies on the image's grid (a mask, an image) and is moved along with it.

    Raises:
        InputError: there are more chances of flipping than axes.
    """
    if len(config.flip) > dimensions:
        raise InputError(f"has {len(config.flip)} chances for {dimensions} axes", where="[augmentation] flip")
    if not config.is_active:
        return None

    def augment(key: Key[Array, ""], image: Array, target: Array) -> tuple[Array, Array]:
        flip_key, shift_key, noise_key = jax.random.split(key, 3)
        flips = jax.random.bernoulli(flip_key, jnp.asarray([*config.flip, 0.0]))
        shifts = jax.random.randint(shift_key, (dimensions,), -config.shift, config.shift + 1)

        def move(grid: Array) -> Array:
            for axis in range(len(config.flip)):
                grid = jnp.where(flips[axis], jnp.flip(grid, axis), grid)
            return _shift(grid, shifts, config.shift) if config.shift else grid

        changed = move(image)
        if config.noise:
            changed = changed + config.noise * jax.random.normal(noise_key, changed.shape, changed.dtype)
        return changed, move(target) if moves_target else target

    return augment


def _shift(grid: Array, shifts: Array, largest: int) -> Array:
    dimensions = shifts.shape[0]
    padding = [(largest, largest)] * dimensions + [(0, 0)] * (grid.ndim - dimensions)
    starts = [shifts[axis] + largest for axis in range(dimensions)] + [0] * (grid.ndim - dimensions)
    return jax.lax.dynamic_slice(jnp.pad(grid, padding, mode="edge"), starts, grid.shape)
