"""ChaCha20, OpenSSL's, as a source of random words.

JAX's default generator has 64-bit keys, which is not enough for noise that must stay secret. ChaCha20 takes 256-bit
keys, is a stream cipher that has withstood public analysis, and is counter-based: every word is a pure function
of key, nonce and counter. So noise can be repeated after a resume, and does not depend on the number of devices. The
words are made on the host, while the device computes: OpenSSL is several times as fast as the cipher written in XLA.

Source: RFC 8439, "ChaCha20 and Poly1305 for IETF Protocols", section 2.3 (its test vectors are in our tests).
"""

import struct
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from jaxtyping import UInt32

KEY_WORDS = 8
NONCE_WORDS = 3

# The block counter has 32 bits, and a block 16 words.
MOST_WORDS = 16 * 2**32


class Keystream:
    """Random words of one stream, in order, the block counter running from 0.

    Args:
        key: 256 secret bits.
        nonce: names the stream; a key and nonce must never serve two purposes.
    """

    def __init__(self, key: UInt32[np.ndarray, " 8"], nonce: tuple[int, int, int]) -> None:
        first = struct.pack("<4I", 0, *nonce)
        self._encryptor: Any = Cipher(algorithms.ChaCha20(key.astype("<u4").tobytes(), first), mode=None).encryptor()
        self._left = MOST_WORDS

    def words(self, count: int) -> UInt32[np.ndarray, " count"]:
        """The next `count` words.

        Raises:
            ValueError: `count` is negative or beyond the counter.
        """
        if not 0 <= count <= self._left:
            raise ValueError(f"Expected 0 <= {count=} <= {self._left}, what is left of the stream.")
        self._left -= count
        words = np.empty(count, "<u4")
        # What a stream cipher makes of zeros is the key stream itself.
        self._encryptor.update_into(bytes(4 * count), words.view(np.uint8))
        return words.astype(np.uint32, copy=False)
