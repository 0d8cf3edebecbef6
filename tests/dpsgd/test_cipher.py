"""The key streams against the vectors of RFC 8439, and against each other."""

import jax
import numpy as np
import pytest

from dpmed.dpsgd.cipher import MOST_WORDS, Keystream, keystream_blocks

KEY = np.frombuffer(bytes(range(32)), np.uint32)


def nonce(text):
    return tuple(np.frombuffer(bytes.fromhex(text), "<u4").tolist())


def test_block_function_gives_the_vector_of_rfc_8439_section_2_3_2():
    # Key 00..1f, nonce 00:00:00:09:00:00:00:4a:00:00:00:00, block counter 1: our counter starts at 0, so this is block
    # 1.
    expected = (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )
    words = Keystream(KEY, nonce("000000090000004a00000000")).words(32)
    assert words[16:].astype("<u4").tobytes().hex() == expected


def test_the_stream_gives_the_encryption_vector_of_rfc_8439_section_2_4_2():
    text = (
        b"Ladies and Gentlemen of the class of '99: "
        b"If I could offer you only one tip for the future, sunscreen would be it."
    )
    words = Keystream(KEY, nonce("000000000000004a00000000")).words(48)
    stream = words.astype("<u4").tobytes()[64 : 64 + len(text)]
    cipher = bytes(a ^ b for a, b in zip(text, stream, strict=True))
    assert cipher.hex().startswith("6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b")
    assert cipher.hex().endswith("8eedf2785e42874d")


def test_the_devices_cipher_gives_the_vector_of_rfc_8439_and_the_hosts_words():
    blocks = jax.jit(keystream_blocks, static_argnames="blocks")
    number = np.asarray(nonce("000000090000004a00000000"), np.uint32)
    expected = (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )
    assert np.asarray(blocks(KEY, number, np.uint32(1), blocks=1)).astype("<u4").tobytes().hex() == expected
    key = np.random.default_rng(1).integers(2**32, size=8, dtype=np.uint32)
    words = Keystream(key, (2**32 - 1, 7, 0)).words(16 * 500)
    nonce_words = np.asarray((2**32 - 1, 7, 0), np.uint32)
    found = [blocks(key, nonce_words, np.uint32(first), blocks=250) for first in (0, 250)]
    np.testing.assert_array_equal(np.concatenate(found), words)
    # The counter's last block is the last of its stream: the counter does not overflow into the nonce.
    last = blocks(key, nonce_words, np.uint32(2**32 - 1), blocks=1)
    assert not np.isin(last, words).any()


def test_pieces_of_any_length_are_the_stream_in_order():
    whole = Keystream(KEY, (1, 2, 3)).words(5000)
    stream = Keystream(KEY, (1, 2, 3))
    pieces = [stream.words(count) for count in (0, 1, 15, 16, 17, 951, 4000)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_nonces_and_keys_name_different_streams():
    streams = [Keystream(key, number).words(64) for key in (KEY, KEY + 1) for number in ((0, 0, 0), (1, 0, 0))]
    for first in range(4):
        for second in range(first):
            assert not np.isin(streams[first], streams[second]).any()


@pytest.mark.parametrize("count", [-1, MOST_WORDS + 1])
def test_lengths_beyond_the_counter_are_refused(count):
    with pytest.raises(ValueError, match="count"):
        Keystream(KEY, (0, 0, 0)).words(count)


def test_a_stream_ends_before_its_counter_begins_anew():
    stream = Keystream(KEY, (0, 0, 0))
    stream.words(16)
    with pytest.raises(ValueError, match="left"):
        stream.words(MOST_WORDS - 15)
