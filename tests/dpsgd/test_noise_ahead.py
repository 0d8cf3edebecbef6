"""Noise generated ahead: the same numbers, once, only after their draw is on record; and errors are raised."""

import threading

import numpy as np
import pytest

from dpmed.dpsgd import noise_ahead
from dpmed.dpsgd.noise import seeded_key, standard_normal
from dpmed.dpsgd.noise_ahead import NoiseAhead

COUNTS = (1001, 1)


def numbers(streams):
    return [np.concatenate([np.zeros(0, np.float32), *stream]) for stream in streams]


def directly(draw, counts=COUNTS):
    return numbers([standard_normal(seeded_key(3), draw, count=count, stream=at) for at, count in enumerate(counts)])


def same(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def makes(monkeypatch):
    """The draws whose numbers were generated, and whether by the main thread."""
    made = []

    def make(key, draw, **options):
        made.append((draw, options["stream"], threading.current_thread() is threading.main_thread()))
        return standard_normal(key, draw, **options)

    monkeypatch.setattr(noise_ahead, "standard_normal", make)
    return made


def test_numbers_begun_ahead_are_those_of_the_draw_and_are_made_once_by_another_thread(makes):
    ahead = NoiseAhead(seeded_key(3))
    for draw in (0, 1, 7):
        ahead.begin(draw, COUNTS)
        same(numbers(ahead.take(draw, COUNTS)), directly(draw))
    assert makes == [(draw, stream, False) for draw in (0, 1, 7) for stream in (0, 1)]


def test_without_a_beginning_or_for_another_draw_numbers_are_made_when_they_are_asked_for(makes):
    ahead = NoiseAhead(seeded_key(3))
    same(numbers(ahead.take(4, COUNTS)), directly(4))
    ahead.begin(5, COUNTS)
    # What was begun is never used, neither for another draw nor later.
    same(numbers(ahead.take(6, COUNTS)), directly(6))
    same(numbers(ahead.take(5, COUNTS)), directly(5))
    ahead.begin(8, COUNTS)
    same(numbers(ahead.take(8, (3, 0))), directly(8, (3, 0)))
    assert [one for one in makes if one[2]] == [(draw, stream, True) for draw in (4, 6, 5, 8) for stream in (0, 1)]


def test_numbers_are_handed_out_once(makes):
    ahead = NoiseAhead(seeded_key(3))
    ahead.begin(2, COUNTS)
    first, again = ahead.take(2, COUNTS), ahead.take(2, COUNTS)
    assert first[0][0] is not again[0][0]
    assert [one[2] for one in makes] == [False, False, True, True]


def test_an_error_of_the_thread_comes_out_where_the_numbers_are_taken(monkeypatch):
    def fail(*_, **__):
        raise MemoryError("no room for noise")

    ahead = NoiseAhead(seeded_key(3))
    with monkeypatch.context() as patch:
        patch.setattr(noise_ahead, "standard_normal", fail)
        ahead.begin(0, COUNTS)
        with pytest.raises(MemoryError, match="no room"):
            ahead.take(0, COUNTS)
    same(numbers(ahead.take(0, COUNTS)), directly(0))


def test_nothing_is_begun_where_the_device_makes_the_noise(makes, monkeypatch):
    monkeypatch.setattr(noise_ahead, "is_made_by_host", lambda: False)
    ahead = NoiseAhead(seeded_key(3))
    ahead.begin(0, COUNTS)
    assert not makes
    same(numbers(ahead.take(0, COUNTS)), directly(0))
