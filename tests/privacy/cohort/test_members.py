"""Whom a run counts for: bits for units in the order of their numbers, and one number for units that are the same."""

import numpy as np
import pytest

from dpmed.privacy.cohort.members import numbered, packed, renumbered, unpacked


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 30])
def test_members_come_back_from_their_bits_and_later_units_are_none(size):
    members = np.random.default_rng(size).random(size) < 0.5
    np.testing.assert_array_equal(unpacked(packed(members), size), members)
    later = unpacked(packed(members), size + 20)
    np.testing.assert_array_equal(later[:size], members)
    assert len(later) == size + 20 and not later[size:].any()


def test_new_units_get_the_next_numbers_and_known_ones_keep_theirs():
    known = {b"a": 0, b"b": 1}
    members, numbers = numbered(known, [[b"b"], [b"c", b"d"], [b"d"]])
    assert known == {b"a": 0, b"b": 1, b"c": 2, b"d": 2}
    assert members.tolist() == [False, True, True] and numbers.tolist() == [0, 1, 2]


def test_units_with_a_common_name_are_one_and_keep_the_runs_of_each():
    known = {b"a": 0, b"b": 1, b"c": 2, b"d": 3}
    # By way of b, a is c too; the numbers are without gaps again.
    members, numbers = numbered(known, [[b"a", b"b"], [b"b", b"c"]])
    assert numbers.tolist() == [0, 0, 0, 1] and members.tolist() == [True, False]
    assert renumbered(np.array([False, False, True, False]), numbers).tolist() == [True, False]
    # A run of earlier times, before the last unit came.
    assert renumbered(np.array([False, True]), numbers).tolist() == [True, False]
