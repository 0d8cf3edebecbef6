"""Turns the numbers of sampled records into padded microbatches, prepared in the background.

A record is what the sampler draws and what is clipped as a whole: one image, or all images of a patient, lesion or scan
when that is the unit of privacy. Within a record, the images are along the `view` axis, which is padded with views of
weight zero. Its length follows from the record's own number of images and from public bounds, never from who else is in
the data set or the batch: a gradient is rounded differently in another shape, so one record would otherwise change the
gradients of others. Records of the same length share microbatches, so one with one image costs less than one with
thirty.

Threads suffice: decoding, resizing and copying release Python's global lock. The result depends only on the requested
numbers, never on timing, so a run resumes at a step by requesting that step's numbers.
"""

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt32

from dpmed.data.base import Dataset
from dpmed.data.identity import KEY_WORDS

_MAX_WORKERS = 8
# Steps without records take no work; this many may wait besides the microbatches in progress.
_WAITING_STEPS = 16
# Each length of the `view` axis is this many times the next smaller one. With two instead, there would be less padding
# and twice as many programs to compile.
_LADDER = 4


@dataclass(frozen=True, kw_only=True)
class Records:
    """A microbatch of one of a few fixed shapes.

    Attributes:
        inputs: as stored; padding is zero.
        targets: as stored; padding is zero.
        weights: one over the number of the record's real views; 0 for a padded view. A record's loss is the weighted
            sum over its views, hence their mean.
        mask: true for a real record, false for padding.
        numbers: the record's number in the sampler's counting; -1 for padding.
        keys: keys from which all randomness of the record is derived; zero for padding.
    """

    inputs: Shaped[np.ndarray, "record view *space channel"]
    targets: Shaped[np.ndarray, "record view ..."]
    weights: Float[np.ndarray, "record view"]
    mask: Bool[np.ndarray, " record"]
    numbers: Int[np.ndarray, " record"]
    keys: UInt32[np.ndarray, "record 2"]


@runtime_checkable
class Gathers(Protocol):
    """A data set that returns many samples at once faster than one by one."""

    def gather(
        self, numbers: Int[np.ndarray, " sample"]
    ) -> tuple[Shaped[np.ndarray, "sample *space channel"], Shaped[np.ndarray, "sample ..."]]:
        """Copies of several samples."""
        ...


def view_bounds(most: int) -> tuple[int, ...]:
    """The numbers of views to which records are padded, rising from 1 to `most`.

    Args:
        most: no record has more views; a public number, such as `data.max_samples_per_unit`.
    """
    bounds = [most]
    while bounds[-1] > 1:
        bounds.append(-(-bounds[-1] // _LADDER))
    return tuple(bounds[::-1])


class Loader:
    """Loads records in microbatches whose records are padded to the same number of views.

    All microbatches have equally many rows, whatever their number of views. Processes that share them derive the same
    sequence of microbatches from the record numbers, so they run the same programs in the same order.

    Args:
        dataset: where samples come from; read from several threads at once.
        members: for each record number, the numbers of its samples in `dataset`; none is empty.
        microbatch: records per microbatch, at least 1.
        workers: threads; None: one per processor, at most 8.
        share: the index of this process and the number of processes that load each microbatch together; each loads only
            its own rows, equally many, padded if necessary.
        keys: for each record, the key of its randomness (`dpmed.data.identity`); None if nothing is random.
        views: lengths of the `view` axis, rising, the last at least as large as the largest record. A record is padded
            to the smallest that holds it. None for the largest record's alone.
    """

    def __init__(
        self,
        dataset: Dataset,
        members: list[Int[np.ndarray, " _"]],
        *,
        microbatch: int,
        workers: int | None = None,
        share: tuple[int, int] = (0, 1),
        keys: UInt32[np.ndarray, "record 2"] | None = None,
        views: Sequence[int] | None = None,
    ) -> None:
        if microbatch < 1:
            raise ValueError(f"Expected {microbatch=} >= 1.")
        if not 0 <= share[0] < share[1]:
            raise ValueError(f"Expected {share=} to be a number and a greater count.")
        if workers is not None and workers < 1:
            raise ValueError(f"Expected {workers=} >= 1.")
        self.dataset = dataset
        self.members = members
        self.microbatch = microbatch
        self.share = share
        self.keys = np.zeros((len(members), KEY_WORDS), np.uint32) if keys is None else keys
        sizes = np.asarray([len(samples) for samples in members], np.int64)
        largest = int(sizes.max(initial=1))
        self.views = (largest,) if views is None else tuple(views)
        if len(self.keys) != len(members) or self.views[-1] < largest or list(self.views) != sorted(set(self.views)):
            raise ValueError(f"Expected {len(self.keys)=} == {len(members)=}, and {views=} to rise to {largest=}.")
        self._views_of = np.asarray(self.views)[np.searchsorted(self.views, sizes)]
        self.workers = workers or min(os.cpu_count() or 1, _MAX_WORKERS)

    def stream(self, steps: Iterable[Int[np.ndarray, " _"]]) -> Generator[Iterator[Records]]:
        """The microbatches for each step's record numbers, in order; an empty step has none.

        Microbatches are prepared ahead, including those of later steps, so `steps` is consumed some steps before its
        numbers are used. Anything left in a step's iterator when the next step is requested is dropped. Closing the
        iterator (or leaving the loop that holds it) ends the threads. An error in preparing a microbatch is raised
        where that microbatch would have been returned.
        """
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="loader")
        ahead = _Ahead(self, pool, steps)
        try:
            while ahead.begin_step():
                yield ahead.microbatches()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def load(self, numbers: Int[np.ndarray, " record"]) -> Iterator[Records]:
        """The microbatches of one step, prepared on demand: every record once, with the last of each shape padded."""
        for part in self.parts(numbers):
            yield self.collect(part)

    def parts(self, numbers: Int[np.ndarray, " record"]) -> Iterator[Int[np.ndarray, " _"]]:
        """The record numbers of each microbatch of a step, beginning with the fewest views."""
        views_of = self._views_of[numbers]
        for views in self.views:
            alike = numbers[views_of == views]
            for start in range(0, len(alike), self.microbatch):
                yield alike[start : start + self.microbatch]

    def padding(self) -> Iterator[Records]:
        """This process's share of a microbatch without any record, for each number of views."""
        like = self._samples(self.members[0][:1])
        for views in self.views:
            yield self._empty(views, *like)

    def collect(self, numbers: Int[np.ndarray, " record"]) -> Records:
        """This process's share of one microbatch of at least one and at most `microbatch` records."""
        number, rows = self.share[0], self._rows
        own = numbers[number * rows : (number + 1) * rows]
        members = [self.members[int(record)] for record in own]
        # If there is none, one sample is read all the same, since the shape of its rows must be known.
        wanted = np.concatenate(members) if members else self.members[int(numbers[0])][:1]
        found_inputs, found_targets = self._samples(wanted)
        # From all rows, so that processes agree: this one may have none. `parts` puts only equals together.
        records = self._empty(int(self._views_of[numbers].max()), found_inputs, found_targets)
        if members:
            counts = np.array([len(samples) for samples in members])
            places = np.repeat(np.arange(len(members)), counts), np.concatenate([np.arange(count) for count in counts])
            records.inputs[places], records.targets[places] = found_inputs, found_targets
            records.weights[places] = (1.0 / counts)[places[0]]
        taken = slice(len(own))
        records.mask[taken], records.numbers[taken], records.keys[taken] = True, own, self.keys[own]
        return records

    @property
    def _rows(self) -> int:
        return -(-self.microbatch // self.share[1])

    def _empty(self, views: int, inputs: Shaped[np.ndarray, "_ ..."], targets: Shaped[np.ndarray, "_ ..."]) -> Records:
        """This process's share of a microbatch of padding alone, for samples like these."""
        rows = self._rows
        return Records(
            inputs=np.zeros((rows, views, *inputs.shape[1:]), inputs.dtype),
            targets=np.zeros((rows, views, *targets.shape[1:]), targets.dtype),
            weights=np.zeros((rows, views), np.float32),
            mask=np.zeros(rows, bool),
            numbers=np.full(rows, -1, np.int64),
            keys=np.zeros((rows, KEY_WORDS), np.uint32),
        )

    def _samples(
        self, numbers: Int[np.ndarray, " sample"]
    ) -> tuple[Shaped[np.ndarray, "sample *space channel"], Shaped[np.ndarray, "sample ..."]]:
        if isinstance(self.dataset, Gathers):
            return self.dataset.gather(numbers)
        samples = [self.dataset[int(number)] for number in numbers]
        return np.stack([sample.input for sample in samples]), np.stack([sample.target for sample in samples])


class _Begin:
    """Marks the beginning of a step among the jobs."""


class _Ahead:
    """Microbatches in progress, in order. Only the consuming thread touches this; others complete the futures."""

    def __init__(self, loader: Loader, pool: ThreadPoolExecutor, steps: Iterable[Int[np.ndarray, " _"]]) -> None:
        self._loader = loader
        self._pool = pool
        self._jobs = self._list_jobs(steps)
        self._queue: deque[Future[Records] | _Begin] = deque()
        self._step = 0

    def begin_step(self) -> bool:
        """Go to the next step; False if there is none."""
        while True:
            self._fill()
            if not self._queue:
                return False
            first = self._queue.popleft()
            if isinstance(first, _Begin):
                self._step += 1
                return True
            first.cancel()

    def microbatches(self) -> Iterator[Records]:
        """Those of the current step, until the next one is begun."""
        return self._microbatches_of(self._step)

    def _microbatches_of(self, step: int) -> Iterator[Records]:
        while self._step == step:
            self._fill()
            if not self._queue or isinstance(self._queue[0], _Begin):
                return
            future = self._queue.popleft()
            assert isinstance(future, Future)  # noqa: S101 for the type checker: checked two lines above
            self._fill()
            yield future.result()

    def _fill(self) -> None:
        limit = self._loader.workers + 2
        while len(self._queue) < limit + _WAITING_STEPS:
            if sum(isinstance(job, Future) for job in self._queue) >= limit:
                return
            job = next(self._jobs, None)
            if job is None:
                return
            self._queue.append(job if isinstance(job, _Begin) else self._pool.submit(self._loader.collect, job))

    def _list_jobs(self, steps: Iterable[Int[np.ndarray, " _"]]) -> Iterator[Int[np.ndarray, " _"] | _Begin]:
        for numbers in steps:
            yield _Begin()
            yield from self._loader.parts(numbers)
