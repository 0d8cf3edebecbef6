"""Gaussian noise, once per step, from 256-bit keys.

A release run draws its key from the operating system when the process starts and never stores it: anyone who holds the
key can subtract the noise. A seeded run derives the key from the seed, so that research is reproducible.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt32

from dpmed.dpsgd.cipher import BLOCK_WORDS, MOST_WORDS, Keystream, keystream_blocks
from dpmed.runtime.jit import Compiled, is_cpu, wait_for

# Sums of several Gaussians hide the pattern of representable numbers that a single floating-point Gaussian leaves
# behind, from which its seed bits could be inferred. Source: Holohan & Braghin (2021), "Secure random sampling in
# differential privacy", section 3.
DRAWS_PER_VALUE = 4
# While the host generates the words of one piece, 8 MB, the device turns those of the previous piece into numbers. The
# bits of seeded runs depend on this size.
_PAIRS_PER_PIECE = 1 << 18
_WORDS_PER_PAIR = 2 * DRAWS_PER_VALUE
# How many pieces of words may wait to be turned into numbers on a device that is busy with gradients.
_WAITING_PIECES = 2
# How many pieces a device that generates its own words makes in one program, with half a gigabyte of memory.
_PIECES_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class NoiseKey:
    """A 256-bit key. Its text form does not reveal it.

    Attributes:
        words: the key, `(8,)` uint32.
    """

    words: UInt32[np.ndarray, " 8"]

    def __repr__(self) -> str:
        return "NoiseKey(secret)"


def key_of(secret: bytes) -> NoiseKey:
    """The key that consists of these 32 bytes."""
    return NoiseKey(np.frombuffer(secret, dtype=np.uint32).copy())


def seeded_key(seed: int) -> NoiseKey:
    """The key derived from `seed`, for reproducible research: anyone who knows the seed can remove the noise."""
    digest = hashlib.sha256(b"dpmed gaussian noise\0" + str(seed).encode()).digest()
    return key_of(digest)


def standard_normal(
    key: NoiseKey, draw: int, *, count: int, stream: int = 0, on_host: bool | None = None
) -> list[Float[Array, " _"]]:
    """At least `count` independent standard normal numbers, in pieces.

    Args:
        key: used for nothing else.
        draw: never used twice with one key and stream, in 0 .. 2^32 - 1.
        count: how many numbers are needed.
        stream: distinguishes separate uses of noise within one draw, in 0 .. 2^32 - 1; the nonce of the ChaCha20 stream
            is (draw, stream, 0).
        on_host: whether the host, not the device, generates the words; None for the faster one. The words are the same.

    Returns:
        float32. Each is the scaled sum of `DRAWS_PER_VALUE` Box-Muller draws; each draw reaches 6.66 standard
        deviations, the sum 13.3. Accounting assumes real numbers, which floats are not (docs/pitfalls.md).

    Raises:
        ValueError: `count` is more than the stream holds.

    Source: Box & Muller (1958).
    """
    nonce = (draw, stream, 0)
    pairs = -(-count // 2)
    if _WORDS_PER_PAIR * pairs > MOST_WORDS:
        raise ValueError(f"Expected {count=} <= {2 * MOST_WORDS // _WORDS_PER_PAIR}, for which the stream has words.")
    on_host = is_made_by_host() if on_host is None else on_host
    return (_made_by_host if on_host else _made_by_device)(key, nonce, pairs)


def is_made_by_host() -> bool:
    """Whether the host generates and transfers the words of noise faster than the default device generates them."""
    return is_cpu()


def _made_by_host(key: NoiseKey, nonce: tuple[int, int, int], pairs: int) -> list[Float[Array, " _"]]:
    """Pieces of numbers whose words OpenSSL generates."""
    stream = Keystream(key.words, nonce)
    pieces: list[Float[Array, " _"]] = []
    while pairs > 0:
        taken = min(pairs, _PAIRS_PER_PIECE)
        pairs -= taken
        words = stream.words(_WORDS_PER_PAIR * taken)
        pieces.extend(_COMPILED_BOX_MULLER(words.reshape(DRAWS_PER_VALUE, 2, taken)))
        # Each piece yields two results.
        wait_for(pieces[: -2 * _WAITING_PIECES][-1:])
    return pieces


def _made_by_device(key: NoiseKey, nonce: tuple[int, int, int], pairs: int) -> list[Float[Array, " _"]]:
    """The same numbers in the same order, in larger pieces: a GPU makes one sooner than the host asks for it."""
    whole, rest = divmod(pairs, _PAIRS_PER_PIECE)
    sizes = [(min(_PIECES_AT_ONCE, whole - at), _PAIRS_PER_PIECE) for at in range(0, whole, _PIECES_AT_ONCE)]
    found, at = [], 0
    for pieces, pairs_per_piece in [*sizes, (1, rest)] if rest else sizes:
        make = _compiled_pieces(pieces, pairs_per_piece)
        found.append(make(key.words, np.asarray(nonce, np.uint32), np.uint32(at)))
        at += pieces * pairs_per_piece * _WORDS_PER_PAIR // BLOCK_WORDS
    return found


@cache
def _compiled_pieces(pieces: int, pairs: int) -> Compiled:
    # Two or three sizes for each size of model.
    return Compiled(partial(_pieces, pieces=pieces, pairs=pairs))


def _pieces(
    key: UInt32[Array, " 8"], nonce: UInt32[Array, " 3"], first: UInt32[Array, ""], *, pieces: int, pairs: int
) -> Float[Array, " _"]:
    """The numbers of so many pieces of the stream, from block number `first` on."""
    count = _WORDS_PER_PAIR * pieces * pairs
    words = keystream_blocks(key, nonce, first, blocks=-(-count // BLOCK_WORDS))[:count]
    x, y = jax.vmap(_box_muller)(words.reshape(pieces, DRAWS_PER_VALUE, 2, pairs))
    return jnp.stack([x, y], axis=1).reshape(-1)


def shaped_like(
    tree: PyTree[Float[Array, "..."]], normal: Sequence[Float[Array, " _"]], *, std: Float[Array, ""] | float
) -> PyTree[Float[Array, "..."]]:
    """Gaussian noise for every number of `tree`.

    Args:
        tree: gives structure, shapes and types.
        normal: pieces of `standard_normal`, with at least as many numbers as `tree`.
        std: standard deviation σ·C, in the gradient's unit.
    """
    leaves, structure = jax.tree.flatten(tree)
    values = jnp.concatenate(list(normal))
    ends = np.cumsum([leaf.size for leaf in leaves]).tolist()
    scaled = [
        values[end - leaf.size : end].reshape(leaf.shape).astype(leaf.dtype) * jnp.asarray(std, leaf.dtype)
        for leaf, end in zip(leaves, ends, strict=True)
    ]
    return jax.tree.unflatten(structure, scaled)


def gaussian_like(
    key: NoiseKey, draw: int, tree: PyTree[Float[Array, "..."]], *, std: float
) -> PyTree[Float[Array, "..."]]:
    """Independent Gaussian noise of standard deviation `std` for every number of `tree`; see `standard_normal`."""
    return shaped_like(tree, standard_normal(key, draw, count=size_of(tree)), std=std)


def smallest_noise_multiplier(most_records: int) -> float:
    """The smallest σ at which a step's noise is what accounting assumes, even next to the largest possible sum.

    Accounting is about S + N in real numbers, where S is the sum and N the noise. The sensitivity holds for S as the
    computer stores it, in float64 (`dpmed.dpsgd.clipped_sum`). S + N is rounded: to float64 when added and when divided
    by the public batch size, then once to float32. Each of these is a function of S + N alone, hence post-processing,
    at any σ. Rounding the sum to float32 *before* noise is added would be another matter: S itself would then move by
    more than C.

    What would be lost at extreme ε is N itself. An entry of S is at most n C, near which float64 numbers are at most
    2⁻⁵² n C apart; if N is smaller than that, the entry shows none of it. So 2¹⁰ such steps are required within σ C,
    which keeps the shape of the noise in every entry. Weights are float32, so they show only the leading digits of S +
    N, and at ε = 10¹⁵ often none of N's: that is rounding of the mechanism's result and does not weaken it.

    Args:
        most_records: n, which no batch size exceeds.
    """
    return 2.0**10 * 2.0**-52 * most_records


def size_of(tree: PyTree[Float[Array, "..."]]) -> int:
    """Number of values in all leaves."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _box_muller(
    words: UInt32[Array, "draws 2 pairs"],
) -> tuple[Float[Array, " pairs"], Float[Array, " pairs"]]:
    """Two values for each pair; written as a sum, which is compiled into one pass over the words."""
    x = y = jnp.zeros(words.shape[-1], jnp.float32)
    for radius_word, angle_word in words:
        # (bits + 1) / 2^32 lies in (0, 1]: its logarithm is finite, and 32 bits let the tail reach 6.66.
        uniform = (radius_word.astype(jnp.float32) + jnp.float32(1.0)) * jnp.float32(2.0**-32)
        radius = jnp.sqrt(jnp.float32(-2.0) * jnp.log(uniform))
        cosine, sine = _on_circle(angle_word)
        x, y = x + radius * cosine, y + radius * sine
    scale = jnp.float32(DRAWS_PER_VALUE**-0.5)
    return x * scale, y * scale


def _on_circle(words: UInt32[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Cosine and sine of 2π word / 2^32, within 2e-7.

    The word is split exactly into quarter turns and a remainder of at most an eighth, for which Taylor polynomials
    suffice: the general functions spend most of their time on reducing angles that may be large.
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


_COMPILED_BOX_MULLER = Compiled(_box_muller)
