"""The noise of a step, made by the host in the background while the step's gradients are computed.

Nothing about noise changes by this: the numbers of a draw are those that `standard_normal` gives for it, they are begun
once the draw is on record, and they are handed out once. What is begun and not asked for is thrown away.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Array, Float

from dpmed.dpsgd.noise import NoiseKey, is_made_by_host, standard_normal

# For each stream, pieces of standard normal numbers.
Streams = list[list[Float[Array, " _"]]]


@dataclass(frozen=True)
class _Begun:
    """A draw under way."""

    draw: int
    counts: tuple[int, ...]
    streams: Future[Streams]


class NoiseAhead:
    """Standard normal numbers of one draw at a time: 4 bytes for each until they are taken, and some 30 MB of words.

    Args:
        key: of the noise.
    """

    def __init__(self, key: NoiseKey) -> None:
        self._key = key
        self._begun: _Begun | None = None

    def begin(self, draw: int, counts: Sequence[int]) -> None:
        """Begin to make the numbers of a draw, if the host makes them; what was begun before is thrown away.

        Args:
            draw: which is on record already.
            counts: numbers that streams 0, 1, … of the draw need.
        """
        self._drop()
        if is_made_by_host():
            wanted = tuple(counts)
            self._begun = _Begun(draw, wanted, self._thread.submit(self._make, draw, wanted))

    def take(self, draw: int, counts: Sequence[int]) -> Streams:
        """The numbers of a draw: those that were begun for it, once; otherwise they are made now.

        An error in making them is raised here.
        """
        begun, wanted = self._begun, tuple(counts)
        if begun is None or (begun.draw, begun.counts) != (draw, wanted):
            self._drop()
            return self._make(draw, wanted)
        self._begun = None
        return begun.streams.result()

    def _make(self, draw: int, counts: tuple[int, ...]) -> Streams:
        return [standard_normal(self._key, draw, count=count, stream=stream) for stream, count in enumerate(counts)]

    def _drop(self) -> None:
        begun, self._begun = self._begun, None
        if begun is not None:
            # Whatever became of it, nobody asks for it.
            begun.streams.cancel()

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        # One thread: of two draws begun the second waits for the first. It ends with this object.
        return ThreadPoolExecutor(1, thread_name_prefix="noise")
