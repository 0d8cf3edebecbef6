"""ChaCha20 as a counter-based source of random words on the device.

JAX's default generator has 64-bit keys, which is not enough for noise that must stay secret. ChaCha20 takes 256-bit
keys, is a stream cipher that has withstood public analysis, and is counter-based: every word is a pure function
of key, nonce and counter. So noise can be repeated after a resume, and does not depend on the number of devices.

Source: RFC 8439, "ChaCha20 and Poly1305 for IETF Protocols", section 2.3 (its test vectors are in our tests).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

KEY_WORDS = 8
NONCE_WORDS = 3
BLOCK_WORDS = 16

_CACHED_BLOCKS = 16384

_CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)  # "expand 32-byte k"
_COLUMN_ROUND = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONAL_ROUND = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def keystream(key: UInt32[Array, " 8"], nonce: UInt32[Array, " 3"], *, words: int) -> UInt32[Array, " words"]:
    """Random words of one stream.

    Args:
        key: 256 secret bits.
        nonce: names the stream; a key and nonce must never serve two purposes.
        words: how many 32-bit words, at most 2^36 (the block counter has 32 bits).

    Returns:
        The first `words` words of the key stream, the block counter running from 0.

    Raises:
        ValueError: `words` is negative or beyond the counter.
    """
    if not 0 <= words <= BLOCK_WORDS * 2**32:
        raise ValueError(f"Expected 0 <= {words=} <= 2**36.")
    blocks = -(-words // BLOCK_WORDS)
    if jax.default_backend() != "cpu" or blocks <= _CACHED_BLOCKS:
        return _blocks(key, nonce, jnp.arange(blocks, dtype=jnp.uint32)).reshape(-1)[:words]
    # Twenty rounds over more than the cache holds would wait for memory.
    pieces = -(-blocks // _CACHED_BLOCKS)
    counters = jnp.arange(pieces * _CACHED_BLOCKS, dtype=jnp.uint32).reshape(pieces, _CACHED_BLOCKS)
    return jax.lax.map(lambda counter: _blocks(key, nonce, counter), counters).reshape(-1)[:words]


def _blocks(
    key: UInt32[Array, " 8"], nonce: UInt32[Array, " 3"], counter: UInt32[Array, " blocks"]
) -> UInt32[Array, "blocks 16"]:
    blocks = counter.shape[0]
    start = [jnp.broadcast_to(jnp.uint32(word), (blocks,)) for word in _CONSTANTS]
    start += [jnp.broadcast_to(key[index], (blocks,)) for index in range(KEY_WORDS)]
    start += [counter, *(jnp.broadcast_to(nonce[index], (blocks,)) for index in range(NONCE_WORDS))]
    # A loop, not twenty rounds written out: the compiler needs seconds for a thousand fused operations.
    mixed = jax.lax.fori_loop(0, 10, lambda _, state: _double_round(state), tuple(start))
    return jnp.stack([word + first for word, first in zip(mixed, start, strict=True)], axis=1)


def _double_round(state: tuple[Array, ...]) -> tuple[Array, ...]:
    words = list(state)
    for a, b, c, d in (*_COLUMN_ROUND, *_DIAGONAL_ROUND):
        words[a], words[b], words[c], words[d] = _quarter_round(words[a], words[b], words[c], words[d])
    return tuple(words)


def _quarter_round(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array, Array, Array]:
    a = a + b
    d = _rotate_left(d ^ a, 16)
    c = c + d
    b = _rotate_left(b ^ c, 12)
    a = a + b
    d = _rotate_left(d ^ a, 8)
    c = c + d
    b = _rotate_left(b ^ c, 7)
    return a, b, c, d


def _rotate_left(word: Array, bits: int) -> Array:
    return (word << jnp.uint32(bits)) | (word >> jnp.uint32(32 - bits))
