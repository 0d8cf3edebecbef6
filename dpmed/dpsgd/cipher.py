"""ChaCha20 as a source of random words: OpenSSL's on the host, and our own in XLA for devices behind a bus.

JAX's default generator has 64-bit keys, which is not enough for noise that must stay secret. ChaCha20 is a stream
cipher with 256-bit keys, has withstood public analysis, and is counter-based: every word is a pure function of key,
nonce and counter. So noise can be reproduced after a resume, and does not depend on the number of devices. Both
implementations give the same words. On a CPU, OpenSSL's is several times as fast; a GPU generates its own words, since
it would otherwise wait for the host and the bus (docs/performance.md has the arithmetic).

Source: RFC 8439, "ChaCha20 and Poly1305 for IETF Protocols", section 2.3 (its test vectors are in our tests).
"""

import struct
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from jaxtyping import Array, UInt32

# The block counter has 32 bits; a block has 16 words.
BLOCK_WORDS = 16
MOST_WORDS = BLOCK_WORDS * 2**32

# "expand 32-byte k"
_CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)
_DOUBLE_ROUNDS = 10
# Columns, then diagonals.
_QUARTERS = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip
_ZEROS = bytes(1 << 20)


class Keystream:
    """Random words of one stream, in order; the block counter starts at 0.

    Args:
        key: 256 secret bits.
        nonce: identifies the stream; the same key and nonce must never serve two purposes.
    """

    def __init__(self, key: UInt32[np.ndarray, " 8"], nonce: tuple[int, int, int]) -> None:
        first = struct.pack("<4I", 0, *nonce)
        self._encryptor: Any = Cipher(algorithms.ChaCha20(key.astype("<u4").tobytes(), first), mode=None).encryptor()
        self._left = MOST_WORDS

    def words(self, count: int) -> UInt32[np.ndarray, " count"]:
        """The next `count` words.

        Raises:
            ValueError: `count` is negative or exceeds what is left of the stream.
        """
        if not 0 <= count <= self._left:
            raise ValueError(f"Expected 0 <= {count=} <= {self._left}, the number of words left in the stream.")
        self._left -= count
        words = np.empty(count, "<u4")
        into = words.view(np.uint8)
        # Encrypting zeros yields the key stream itself.
        for start in range(0, len(into), len(_ZEROS)):
            part = into[start : start + len(_ZEROS)]
            self._encryptor.update_into(memoryview(_ZEROS)[: len(part)], part)
        return words.astype(np.uint32, copy=False)


def keystream_blocks(
    key: UInt32[Array, " 8"], nonce: UInt32[Array, " 3"], first: UInt32[Array, ""], *, blocks: int
) -> UInt32[Array, " words"]:
    """The words of `Keystream` from block number `first` on, in XLA's arithmetic; to be compiled.

    Key and nonce are arguments, so no compiled program contains them.

    Args:
        key: 256 secret bits.
        nonce: identifies the stream.
        first: number of the first block.
        blocks: number of blocks; the caller stays within the counter's 32 bits.

    Source: RFC 8439, section 2.3.
    """
    words = [jnp.uint32(constant) for constant in _CONSTANTS] + list(key) + [first] + list(nonce)
    start = [jnp.broadcast_to(word, (blocks,)) for word in words]
    start[12] = first + jnp.arange(blocks, dtype=jnp.uint32)
    # A loop, since unrolled rounds take seconds to compile.
    end = jax.lax.fori_loop(0, _DOUBLE_ROUNDS, lambda _, state: _double_round(state), start)
    return jnp.stack([a + b for a, b in zip(start, end, strict=True)], axis=-1).reshape(-1)


def _double_round(state: list[UInt32[Array, " block"]]) -> list[UInt32[Array, " block"]]:
    state = list(state)
    for a, b, c, d in _QUARTERS:
        for target, other, turned, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[target] = state[target] + state[other]
            mixed = state[turned] ^ state[target]
            state[turned] = (mixed << jnp.uint32(bits)) | (mixed >> jnp.uint32(32 - bits))
    return state
