"""The noise of a step by the number of parameters: processor milliseconds of its parts on the host, and bytes.

`words, OpenSSL` and `words, XLA` are the cipher's alone, `numbers` is all of `standard_normal` on this backend. None of
it depends on what else runs, but for caches.
"""

import os
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import numpy as np

from dpmed.dpsgd.cipher import BLOCK_WORDS, Keystream, keystream_blocks
from dpmed.dpsgd.noise import DRAWS_PER_VALUE, NoiseKey, seeded_key, standard_normal
from tests.benchmarks.record import measurement

# ResNet-9, a larger convolutional network, ViT-B.
PARAMETERS = (2_400_000, 12_000_000, 86_000_000)
# Two words make two values.
WORDS_PER_VALUE = DRAWS_PER_VALUE
_PIECE = 1 << 21


def run() -> list[dict[str, Any]]:
    """Processor milliseconds by the number of parameters."""
    results = []
    key = seeded_key(0)
    for count in PARAMETERS:
        words = WORDS_PER_VALUE * count
        calls: dict[str, Callable[[], object]] = {
            "words, OpenSSL": partial(_taken, Keystream(key.words, (0, 0, 0)).words, words),
            "words, XLA": partial(_taken, partial(words_by_xla, key), words),
            "numbers": partial(standard_normal, key, 0, count=count),
        }
        print(
            f"{count:,} parameters: {4 * words / 1e6:.0f} MB of words, {4 * count / 1e6:.0f} MB of numbers", flush=True
        )
        for name, call in calls.items():
            results.append(
                measurement(
                    f"noise-{count}", name, "cpu ms", [1e3 * _cpu(call) for _ in range(_rounds())], more_is_better=False
                )
            )
    return results


def words_by_xla(key: NoiseKey, count: int) -> Any:
    """The first words of a stream, from the device's cipher."""
    make = _compiled_blocks(-(-count // BLOCK_WORDS))
    return make(key.words, np.zeros(3, np.uint32), np.uint32(0))[:count]


@cache
def _compiled_blocks(blocks: int) -> Any:
    return jax.jit(partial(keystream_blocks, blocks=blocks))


def _rounds() -> int:
    return int(os.environ.get("BENCH_ROUNDS", "3"))


def _taken(words_of: Callable[[int], Any], count: int) -> None:
    """All words, in pieces as noise takes them."""
    for start in range(0, count, _PIECE):
        jax.block_until_ready(words_of(min(_PIECE, count - start)))


def _cpu(call: Callable[[], object]) -> float:
    begun = time.process_time()
    jax.block_until_ready(call())
    return time.process_time() - begun
