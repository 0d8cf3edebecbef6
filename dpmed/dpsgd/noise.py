"""Gaussian noise, once per step, from 256-bit keys.

A release run draws its key from the operating system when the process starts and never stores it: who holds the key
can subtract the noise. A seeded run derives the key from the seed, so that research is repeatable.
"""

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt32

from dpmed.dpsgd.cipher import KEY_WORDS, keystream

# Sums of several Gaussians hide the pattern of representable numbers that a single floating-point Gaussian leaves
# behind and by which its seed bits could be told. Source: Holohan & Braghin (2021), "Secure random sampling in
# differential privacy", section 3.
DRAWS_PER_VALUE = 4


@dataclass(frozen=True, eq=False)
class NoiseKey:
    """A 256-bit key. Its text form shows nothing of it.

    Attributes:
        words: the key, `(8,)` uint32.
    """

    words: UInt32[np.ndarray, " 8"]

    def __repr__(self) -> str:
        return "NoiseKey(secret)"


def entropy_key() -> NoiseKey:
    """A fresh key from the operating system's entropy."""
    return NoiseKey(np.frombuffer(os.urandom(4 * KEY_WORDS), dtype=np.uint32).copy())


def seeded_key(seed: int) -> NoiseKey:
    """The key that belongs to `seed`, for repeatable research: anyone who knows the seed can remove the noise."""
    digest = hashlib.sha256(b"dpmed gaussian noise\0" + str(seed).encode()).digest()
    return NoiseKey(np.frombuffer(digest, dtype=np.uint32).copy())


def gaussian_like(
    key: UInt32[Array, " 8"],
    step: UInt32[Array, ""],
    tree: PyTree[Float[Array, "..."]],
    *,
    std: Float[Array, ""] | float,
) -> PyTree[Float[Array, "..."]]:
    """Independent Gaussian noise for every number of `tree`.

    Args:
        key: 256 secret bits, for this purpose alone.
        step: the number of the draw, never used twice with one key.
        tree: gives structure and shapes; leaves are float32.
        std: standard deviation σ·C, in the gradient's unit.

    Returns:
        Noise of the structure of `tree`; leaf k of step s comes from the ChaCha20 stream with nonce (s, k, 0).
        Values reach 6.66 standard deviations per draw, 13.3 after summing; floats are no reals, and accounting
        assumes real numbers (docs/pitfalls.md).

    Source: Box & Muller (1958).
    """
    leaves, structure = jax.tree.flatten(tree)
    noisy = []
    for index, leaf in enumerate(leaves):
        nonce = jnp.stack([step, jnp.uint32(index), jnp.uint32(0)])
        noisy.append(standard_normal(key, nonce, count=leaf.size).reshape(leaf.shape) * jnp.asarray(std, leaf.dtype))
    return jax.tree.unflatten(structure, noisy)


def standard_normal(key: UInt32[Array, " 8"], nonce: UInt32[Array, " 3"], *, count: int) -> Float[Array, " count"]:
    """`count` independent standard normal numbers, each the scaled sum of `DRAWS_PER_VALUE` Box-Muller draws."""
    pairs = -(-count // 2)
    words = keystream(key, nonce, words=2 * pairs * DRAWS_PER_VALUE).reshape(DRAWS_PER_VALUE, 2, pairs)
    # (bits + 1) / 2^32 lies in (0, 1]: its logarithm is finite, and 32 bits let the tail reach 6.66.
    uniform = (words[:, 0].astype(jnp.float32) + jnp.float32(1.0)) * jnp.float32(2.0**-32)
    radius = jnp.sqrt(jnp.float32(-2.0) * jnp.log(uniform))
    cosine, sine = _on_circle(words[:, 1])
    summed: Any = jnp.concatenate([jnp.sum(radius * cosine, axis=0), jnp.sum(radius * sine, axis=0)])
    return summed[:count] * jnp.float32(DRAWS_PER_VALUE**-0.5)


def _on_circle(words: UInt32[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Cosine and sine of 2π word / 2^32, within 2e-7.

    The word is split exactly into quarter turns and a rest of at most an eighth, of which Taylor's polynomials suffice:
    the general functions spend most of their time on reducing angles that may be large.
    """
    quarter = (words + jnp.uint32(1 << 29)) >> jnp.uint32(30)
    rest = jax.lax.bitcast_convert_type(words - (quarter << jnp.uint32(30)), jnp.int32)
    angle = rest.astype(jnp.float32) * jnp.float32(2.0 * np.pi * 2.0**-32)
    square = jnp.square(angle)
    sine = angle * _polynomial(square, (1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880))
    cosine = _polynomial(square, (1.0, -1 / 2, 1 / 24, -1 / 720, 1 / 40320))
    is_odd = (quarter & jnp.uint32(1)) == jnp.uint32(1)
    turned_cosine, turned_sine = jnp.where(is_odd, sine, cosine), jnp.where(is_odd, cosine, sine)
    is_left = ((quarter + jnp.uint32(1)) & jnp.uint32(2)) != jnp.uint32(0)
    is_below = (quarter & jnp.uint32(2)) != jnp.uint32(0)
    return jnp.where(is_left, -turned_cosine, turned_cosine), jnp.where(is_below, -turned_sine, turned_sine)


def _polynomial(x: Float[Array, "..."], coefficients: tuple[float, ...]) -> Float[Array, "..."]:
    value = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * x + jnp.float32(coefficient)
    return value
