"""Initial weights, without a compilation for every shape: most of what starting a small network took."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

# Numbers drawn at once: about a millisecond, so that what a small layer leaves unused is no loss.
_BLOCK = 1 << 17
_MANTISSA_BITS, _ONE = 23, np.float32(1.0).view(np.uint32)
# JAX counts numbers by two words, of which this module moves the lower.
_MOST = 1 << 32


def normal(key: PRNGKeyArray, shape: tuple[int, ...], *, std: float = 1.0) -> Float[Array, "..."]:
    """Normal numbers of mean 0: standard normal ones, bit for bit those of `jax.random.normal`, times `std`.

    JAX's default generator gives each number by key and place alone, so that one compiled block serves every shape.
    Where that does not hold (another generator, or within a function that is traced) JAX's own function is called.

    Args:
        key: a key, never used for anything else.
        shape: of the numbers.
        std: their standard deviation.
    """
    count = math.prod(shape)
    if isinstance(key, jax.core.Tracer) or not _counts_places(key) or count >= _MOST:
        return jnp.float32(std) * jax.random.normal(key, shape, jnp.float32)
    words = jax.random.key_data(key)
    drawn = [np.asarray(_draw(words, np.uint32(first))) for first in range(0, count, _BLOCK)]
    flat = np.concatenate(drawn)[:count] if drawn else np.zeros(0, np.float32)
    # Multiplied here: JAX would compile a product, and `jnp.asarray` a copy, for each shape.
    return jax.device_put(np.float32(std) * flat.reshape(shape))


def filled(shape: int | tuple[int, ...], value: float) -> Float[Array, "..."]:
    """An array of one number; `jax.numpy.full` compiles a program for each shape."""
    return jax.device_put(np.full(shape, value, np.float32))


def _counts_places(key: PRNGKeyArray) -> bool:
    is_default = str(jax.random.key_impl(key)) == "threefry2x32"
    return is_default and bool(jax.config.jax_threefry_partitionable)  # type: ignore[attr-defined] # set at run time


def _block(size: int, words: UInt32[Array, "2"], first: UInt32[Array, ""]) -> Float[Array, " size"]:
    """The numbers from place `first` on, as `jax.random.normal` makes them.

    Threefry of each place (Salmon et al., 2011), its two words joined; the upper 23 bits as a number in [1, 2), moved
    to (-1, 1); and the inverse of the distribution function.
    """
    places = first + jax.lax.iota(np.uint32, size)
    upper, lower = jnp.split(threefry_2x32(words, jnp.concatenate([jnp.zeros_like(places), places])), 2)
    bits = ((upper ^ lower) >> np.uint32(32 - _MANTISSA_BITS)) | _ONE
    fraction = jax.lax.bitcast_convert_type(bits, jnp.float32) - np.float32(1)
    low = np.nextafter(np.float32(-1), np.float32(0))
    uniform = jnp.maximum(low, fraction * (np.float32(1) - low) + low)
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform)


# As JAX compiles its own: these are its bits.
_draw = jax.jit(partial(_block, _BLOCK))
