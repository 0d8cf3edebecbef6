"""ChaCha20 against the vectors of RFC 8439."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.dpsgd.cipher import _blocks, keystream

KEY = jnp.asarray(np.frombuffer(bytes(range(32)), np.uint32))


def test_block_function_gives_the_vector_of_rfc_8439_section_2_3_2():
    # Key 00..1f, nonce 00:00:00:09:00:00:00:4a:00:00:00:00, block counter 1: our counter runs from 0, so block 1.
    nonce = jnp.asarray(np.frombuffer(bytes.fromhex("000000090000004a00000000"), np.uint32))
    expected = (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )
    words = np.asarray(jax.jit(keystream, static_argnames="words")(KEY, nonce, words=32))
    assert words[16:].tobytes().hex() == expected


def test_keystream_gives_the_encryption_vector_of_rfc_8439_section_2_4_2():
    nonce = jnp.asarray(np.frombuffer(bytes.fromhex("000000000000004a00000000"), np.uint32))
    text = (
        b"Ladies and Gentlemen of the class of '99: "
        b"If I could offer you only one tip for the future, sunscreen would be it."
    )
    stream = np.asarray(keystream(KEY, nonce, words=48)).tobytes()[64 : 64 + len(text)]
    cipher = bytes(a ^ b for a, b in zip(text, stream, strict=True))
    assert cipher.hex().startswith("6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b")
    assert cipher.hex().endswith("8eedf2785e42874d")


@pytest.mark.parametrize("words", [0, 1, 15, 16, 17, 100])
def test_a_shorter_stream_is_the_beginning_of_a_longer_one(words):
    nonce = jnp.zeros(3, jnp.uint32)
    longer = np.asarray(keystream(KEY, nonce, words=128))
    np.testing.assert_array_equal(np.asarray(keystream(KEY, nonce, words=words)), longer[:words])


def test_a_negative_length_is_refused():
    with pytest.raises(ValueError, match="words"):
        keystream(KEY, jnp.zeros(3, jnp.uint32), words=-1)


def test_a_long_stream_is_made_in_pieces_and_begins_like_a_short_one():
    key, nonce = jnp.arange(8, dtype=jnp.uint32), jnp.arange(3, dtype=jnp.uint32)
    long = np.asarray(keystream(key, nonce, words=16 * 16384 + 40))
    assert long.shape == (16 * 16384 + 40,)
    np.testing.assert_array_equal(long[:100], keystream(key, nonce, words=100))
    # The last words come from the second piece: a single block of the same counter, made by hand.
    by_hand = _blocks(key, nonce, jnp.asarray([16384], jnp.uint32))[0]
    np.testing.assert_array_equal(long[16 * 16384 : 16 * 16384 + 16], by_hand)
