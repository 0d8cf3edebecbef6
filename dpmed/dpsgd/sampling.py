"""Which records join a step.

Poisson sampling: every record joins every step independently, with the sampling rate as its probability, so batches
vary in size and may be empty. The accounting of amplification by sampling rests on that independence (Abadi et al.,
2016; Mironov et al., 2019); shuffled batches of a fixed size lack it and are offered only to runs without privacy.

Amplification does not protect against anyone who knows which records took part, so a release run draws from the
operating system's entropy.
"""

import hashlib
import os
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt64

from dpmed.dpsgd.cipher import Keystream

EntropySource = Literal["os-entropy", "seeded"]

_CHUNK = 1 << 20


@runtime_checkable
class Sampler(Protocol):
    """Draws the records of a step."""

    def draw(self, step: int) -> Int[np.ndarray, " record"]:
        """Record numbers of step `step`, counted from 0, in ascending order."""
        ...


@dataclass(frozen=True)
class PoissonSampler:
    """Each of `population` records joins each step independently with probability `sampling_rate`.

    Attributes:
        population: number of records N, at least 1.
        sampling_rate: in (0, 1]. Realised as floor(rate·2^64)/2^64, never above the rate.
        source: the operating system's entropy, or the seed.
        seed: used by the source `seeded` only; draws are then a function of seed and step.
        key: used by the source `os-entropy` only, if several processes must draw the same records: 32 secret bytes of
            the operating system's entropy, from which ChaCha20 generates the words. With the same key, a step is not
            drawn anew.
    """

    population: int
    sampling_rate: float
    source: EntropySource
    seed: int = 0
    key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.population < 1:
            raise ValueError(f"Expected {self.population=} >= 1.")
        if not 0.0 < self.sampling_rate <= 1.0:
            raise ValueError(f"Expected {self.sampling_rate=} in (0, 1].")

    def draw(self, step: int) -> Int[np.ndarray, " record"]:
        """The records of one step; with the source `os-entropy` and no key, each call draws anew."""
        if self.sampling_rate == 1.0:
            return np.arange(self.population)
        threshold = np.uint64(int(self.sampling_rate * 2.0**64))
        parts = []
        for start in range(0, self.population, _CHUNK):
            words = self._words(step, start, min(_CHUNK, self.population - start))
            parts.append(np.flatnonzero(words < threshold) + start)
        return np.concatenate(parts)

    def _words(self, step: int, start: int, count: int) -> UInt64[np.ndarray, " count"]:
        if self.source == "os-entropy" and self.key is not None:
            return (
                Keystream(np.frombuffer(self.key, np.uint32), (step, start // _CHUNK, 0))
                .words(2 * count)
                .view(np.uint64)
            )
        if self.source == "os-entropy":
            return np.frombuffer(os.urandom(8 * count), dtype=np.uint64)
        digest = hashlib.sha256(b"dpmed poisson sampling\0" + str(self.seed).encode()).digest()
        key = np.frombuffer(digest[:16], dtype=np.uint64)
        generator = np.random.Philox(key=key, counter=np.array([0, 0, start, step], dtype=np.uint64))
        return generator.random_raw(count).astype(np.uint64, copy=False)


@dataclass(frozen=True)
class ShuffledSampler:
    """Batches of a fixed size without replacement, reshuffled every epoch: for runs without privacy only.

    Attributes:
        population: number of records.
        batch_size: records per step, at most `population`; an incomplete last batch of an epoch is left out.
        seed: fixes the order.
    """

    population: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.population:
            raise ValueError(f"Expected 1 <= {self.batch_size=} <= {self.population=}.")

    def draw(self, step: int) -> Int[np.ndarray, " record"]:
        """The records of one step; a function of seed and step."""
        epoch, place = divmod(step, self.population // self.batch_size)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.population)
        return np.sort(order[place * self.batch_size : (place + 1) * self.batch_size])
