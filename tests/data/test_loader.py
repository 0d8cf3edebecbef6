import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.data.base import Info, Sample
from dpmed.data.loader import Loader, view_bounds
from dpmed.data.storage.stored import ArrayDataset, Listing
from dpmed.errors import InputError

INFO = Info(
    name="made",
    task="classification",
    input_shape=(2, 3, 1),
    class_names=("x", "y"),
    scale=1.0,
    mean=(0.0,),
    std=(1.0,),
    unit="patient",
)
COUNT = 40


class Slow:
    """Counts what is under way, takes a while that varies, and breaks at one sample."""

    info, labels, official_split = INFO, None, None
    groups = tuple(str(number) for number in range(COUNT))

    def __init__(self, bad=None, seconds=0.0):
        self.bad, self.seconds = bad, seconds
        self.reads = 0
        self.lock = threading.Lock()

    def columns(self):
        return {}

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        with self.lock:
            self.reads += 1
        if self.seconds:
            time.sleep(self.seconds * ((index * 7) % 5))
        if index == self.bad:
            raise InputError("cannot be decoded", where="bad.png")
        return Sample(input=np.full((2, 3, 1), index, np.uint8), target=np.asarray(index % 2, np.int32))


def arrays():
    inputs = np.repeat(np.arange(COUNT, dtype=np.uint8), 6).reshape(COUNT, 2, 3, 1)
    targets = (np.arange(COUNT) % 2).astype(np.int32)
    return ArrayDataset(INFO, Listing(labels=targets, groups=Slow.groups), inputs=inputs, targets=targets)


def members(sizes):
    ends = np.cumsum(sizes)
    return [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def read(loader, steps):
    return [list(step) for step in loader.stream(steps)]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=10),
    st.lists(st.lists(st.integers(0, 9), max_size=12, unique=True), max_size=6),
    st.integers(1, 5),
    st.integers(1, 3),
    st.booleans(),
)
def test_every_record_comes_once_whole_in_order_and_padding_is_zero(sizes, steps, microbatch, workers, gathers):
    groups = members(sizes)
    steps = [np.array([number for number in step if number < len(sizes)], np.int64) for step in steps]
    loader = Loader(arrays() if gathers else Slow(), groups, microbatch=microbatch, workers=workers)
    found = read(loader, steps)
    assert len(found) == len(steps)
    for step, microbatches in zip(steps, found, strict=True):
        assert len(microbatches) == -(-len(step) // microbatch)
        numbers = [
            int(n) for records in microbatches for n, real in zip(records.numbers, records.mask, strict=True) if real
        ]
        assert numbers == step.tolist()
        for records in microbatches:
            assert records.inputs.shape == (microbatch, max(sizes), 2, 3, 1) and records.inputs.dtype == np.uint8
            for row, number in enumerate(records.numbers):
                expected = np.zeros(max(sizes), int)
                weights = np.zeros(max(sizes))
                if number >= 0:
                    expected[: sizes[number]] = groups[number]
                    weights[: sizes[number]] = 1 / sizes[number]
                assert (records.inputs[row] == expected[:, None, None, None]).all()
                assert records.targets[row].tolist() == [value % 2 for value in expected]
                np.testing.assert_allclose(records.weights[row], weights, rtol=1e-6)
                assert records.mask[row] == (number >= 0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=10),
    st.lists(st.integers(0, 9), max_size=12, unique=True),
    st.integers(1, 4),
    st.integers(30, 40),
)
def test_a_records_shape_follows_from_its_own_size_and_public_bounds(sizes, step, microbatch, most):
    groups = [np.arange(size) for size in sizes]
    step = np.array([number for number in step if number < len(sizes)], np.int64)
    bounds = view_bounds(most)
    loader = Loader(arrays(), groups, microbatch=microbatch, workers=1, views=bounds)
    found = {}
    for records in loader.load(step):
        assert records.inputs.shape[:2] == (microbatch, records.weights.shape[1])
        for row in np.flatnonzero(records.mask):
            number = int(records.numbers[row])
            assert number not in found
            found[number] = records.weights[row], records.inputs[row, :, 0, 0, 0]
    assert sorted(found) == sorted(step.tolist())
    for number, (weights, inputs) in found.items():
        # Of its own size and of public numbers alone.
        assert len(weights) == min(bound for bound in bounds if bound >= sizes[number])
        np.testing.assert_allclose(weights[: sizes[number]], 1 / sizes[number], rtol=1e-6)
        assert not weights[sizes[number] :].any()
        assert inputs[: sizes[number]].tolist() == list(range(sizes[number]))
        # And so it is when it is drawn alone.
        (alone,) = loader.load(np.array([number]))
        assert alone.weights.shape[1] == len(weights)
    # At most one microbatch of each shape is not full.
    full = [int(records.mask.sum()) for records in loader.load(step)]
    assert sum(count < microbatch for count in full) <= len(bounds)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_microbatch_of_padding_has_the_shapes_of_one_of_records(count):
    for number in range(count):
        share = (number, count)
        loader = Loader(arrays(), members([1, 2, 8]), microbatch=4, workers=1, views=(1, 2, 8), share=share)
        for empty, full in zip(loader.padding(), loader.load(np.arange(3)), strict=True):
            for name in ("inputs", "targets", "weights", "mask", "numbers", "keys"):
                one, other = getattr(empty, name), getattr(full, name)
                assert (one.shape, one.dtype) == (other.shape, other.dtype)
            assert not empty.mask.any()
            assert (empty.numbers == -1).all()


@pytest.mark.parametrize(
    ("most", "bounds"), [(1, (1,)), (2, (1, 2)), (3, (1, 3)), (4, (1, 4)), (30, (1, 2, 8, 30)), (64, (1, 4, 16, 64))]
)
def test_numbers_of_views_follow_from_the_largest(most, bounds):
    assert view_bounds(most) == bounds


@pytest.mark.parametrize("views", [(1, 2), (3, 1), (3, 3)])
def test_numbers_of_views_that_do_not_rise_to_the_largest_record_are_a_programmers_error(views):
    with pytest.raises(ValueError, match="views"):
        Loader(arrays(), members([1, 3]), microbatch=2, views=views)


def test_timing_does_not_change_what_comes_out():
    steps = [np.array([3, 1, 2]), np.zeros(0, np.int64), np.arange(9)]
    groups = members([2] * 10)
    plain = read(Loader(Slow(), groups, microbatch=2, workers=1), steps)
    late = read(Loader(Slow(seconds=0.002), groups, microbatch=2, workers=4), steps)
    for ours, theirs in zip(plain, late, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert np.array_equal(one.inputs, other.inputs) and np.array_equal(one.numbers, other.numbers)


def test_load_gives_what_stream_gives():
    loader = Loader(arrays(), members([1] * 20), microbatch=8)
    numbers = np.array([5, 3, 19, 0, 1, 2, 4, 6, 7])
    for one, other in zip(loader.load(numbers), read(loader, [numbers])[0], strict=True):
        assert np.array_equal(one.inputs, other.inputs)


def test_it_works_ahead_but_not_without_bound():
    dataset = Slow()
    loader = Loader(dataset, members([1] * COUNT), microbatch=1, workers=2)
    asked = []

    def endless():
        for step in range(10**9):
            asked.append(step)
            yield np.array([step % COUNT]) if step % 3 else np.zeros(0, np.int64)

    stream = loader.stream(endless())
    next(stream)
    time.sleep(0.1)
    assert 2 <= dataset.reads <= 6
    assert len(asked) <= 30
    stream.close()


def test_leaving_a_step_early_goes_on_with_the_next():
    loader = Loader(Slow(seconds=0.001), members([1] * COUNT), microbatch=1, workers=2)
    firsts = []
    for step in loader.stream([np.arange(0, 20), np.arange(20, 40)]):
        firsts.append(int(next(step).numbers[0]))
    assert firsts == [0, 20]


def test_a_step_that_has_been_passed_gives_no_more():
    loader = Loader(Slow(), members([1] * COUNT), microbatch=1, workers=1)
    stream = loader.stream([np.arange(3), np.arange(3, 6)])
    first = next(stream)
    second = next(stream)
    assert list(first) == []
    assert [int(records.numbers[0]) for records in second] == [3, 4, 5]


def test_an_error_comes_out_where_its_microbatch_would_and_ends_the_threads():
    loader = Loader(Slow(bad=5), members([1] * COUNT), microbatch=2, workers=2)
    seen = []
    with pytest.raises(InputError, match=r"bad\.png"):
        for step in loader.stream([np.arange(COUNT)]):
            for records in step:
                seen.append(records.numbers.tolist())
    assert seen == [[0, 1], [2, 3]]


def test_closing_early_leaves_no_thread_behind():
    before = set(threading.enumerate())
    stream = Loader(Slow(seconds=0.002), members([1] * COUNT), microbatch=1, workers=3).stream([np.arange(COUNT)] * 5)
    next(next(stream))
    stream.close()
    assert set(threading.enumerate()) <= before


def test_a_run_that_resumes_reads_what_it_would_have_read():
    loader = Loader(arrays(), members([1] * COUNT), microbatch=4)
    steps = [np.random.default_rng(step).permutation(COUNT)[: step + 3] for step in range(8)]
    whole, rest = read(loader, steps), read(loader, steps[5:])
    for one, other in zip(whole[5:], rest, strict=True):
        assert all(np.array_equal(a.inputs, b.inputs) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("keys", [{"microbatch": 0}, {"microbatch": 1, "workers": 0}])
def test_impossible_sizes_are_a_programmers_error(keys):
    with pytest.raises(ValueError, match="Expected"):
        Loader(arrays(), members([1]), **keys)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=10),
    st.lists(st.integers(0, 9), min_size=1, max_size=12, unique=True),
    st.integers(1, 6),
    st.integers(1, 4),
)
def test_processes_load_the_shares_of_one_batch(sizes, step, microbatch, count):
    step = np.array(sorted({number % len(sizes) for number in step}))
    whole = read(Loader(arrays(), members(sizes), microbatch=microbatch, workers=1), [step])[0]
    shares = [
        read(Loader(arrays(), members(sizes), microbatch=microbatch, workers=1, share=(number, count)), [step])[0]
        for number in range(count)
    ]
    for together, *parts in zip(whole, *shares, strict=True):
        # All bring as many rows, and their records are the batch's, each once and in order.
        assert len({records.inputs.shape for records in parts}) == 1
        for name in ("inputs", "targets", "weights", "numbers"):
            joined = np.concatenate([getattr(records, name)[records.mask] for records in parts])
            np.testing.assert_array_equal(joined, getattr(together, name)[together.mask])


@pytest.mark.parametrize("share", [(1, 1), (-1, 2), (0, 0)])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        Loader(arrays(), members([1]), microbatch=1, share=share)
