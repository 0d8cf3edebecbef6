import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmed.data.base import Info
from dpmed.data.stored import ArrayDataset, Listing
from dpmed.data.units import group_privacy, members_by_unit, summarise_units
from dpmed.errors import InputError

GROUPS = ["a", "b", "a", "c", "b", "a"]


def make(unit="patient", groups=GROUPS):
    info = Info(
        name="made",
        task="classification",
        input_shape=(1, 1),
        class_names=("x", "y"),
        scale=1.0,
        mean=(0.0,),
        std=(1.0,),
        unit=unit,
    )
    count = len(groups)
    listing = Listing(labels=np.zeros(count, np.int32), groups=groups)
    return ArrayDataset(info, listing, inputs=np.zeros((count, 1, 1), np.uint8), targets=np.zeros(count, np.int32))


def lists(members):
    return [numbers.tolist() for numbers in members]


def test_records_are_whole_patients_of_the_training_split():
    assert lists(members_by_unit(make(), np.array([0, 2, 3, 4]), unit="patient")) == [[0, 2], [3], [4]]


def test_with_unit_image_every_sample_is_a_record():
    assert lists(members_by_unit(make(), np.array([4, 0, 2]), unit="image")) == [[0], [2], [4]]


def test_the_cap_holds_for_patients_whatever_the_unit():
    everything = np.arange(6)
    assert lists(members_by_unit(make(), everything, unit="patient", max_samples=2)) == [[0, 2], [1, 4], [3]]
    assert lists(members_by_unit(make(), everything, unit="image", max_samples=1)) == [[0], [1], [3]]


@pytest.mark.parametrize(("known", "asked"), [("image", "patient"), ("lesion", "patient"), ("patient", "lesion")])
def test_a_unit_that_the_data_do_not_know_is_refused(known, asked):
    with pytest.raises(InputError, match=f"unit = '{asked}'.*Choose \"{known}\""):
        members_by_unit(make(known), np.arange(6), unit=asked)


def test_summary_counts_the_training_split_only():
    summary = summarise_units(make(), np.array([0, 1, 2, 4]))
    assert (summary.units, summary.samples, summary.largest, summary.several) == (2, 4, 2, 2)
    assert "2 of 2 patients have several images" in summary.sentence(epsilon=1.0, delta=1e-6)
    assert summarise_units(make(groups=list("abcdef")), np.arange(6)).sentence(epsilon=1.0, delta=1e-6) is None


def test_the_ledgers_sentence_says_so_where_group_privacy_promises_nothing():
    sentence = summarise_units(make(), np.arange(6)).sentence(epsilon=20.0, delta=1e-6)
    assert "no (ε, δ) with δ < 1 at all" in sentence


# No subnormal δ: of such numbers a float keeps a few bits only.
@given(st.floats(0, 30), st.floats(0, 1, allow_subnormal=False), st.integers(1, 12))
def test_group_privacy_is_the_recursion_of_one_record_after_the_other(epsilon, delta, size):
    # One more neighbour at a time: P(A) <= e^ε P'(A) + δ, applied `size` times.
    expected = 0.0
    for _ in range(size):
        expected = delta + math.exp(epsilon) * expected
    group_epsilon, group_delta = group_privacy(epsilon, delta, size=size)
    assert group_epsilon == pytest.approx(size * epsilon)
    assert group_delta == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_randomised_response_shows_that_the_bound_is_not_too_small():
    # k independent coins, each true with probability p: for k records the exact δ at kε' is computable.
    p, size, epsilon = 0.8, 3, 1.0
    ratio = p / (1 - p)
    delta = max(0.0, p - math.exp(epsilon) * (1 - p))
    group_epsilon, group_delta = group_privacy(epsilon, delta, size=size)
    exact = sum(
        math.comb(size, k)
        * max(0.0, p**k * (1 - p) ** (size - k) * (1 - math.exp(group_epsilon) / ratio ** (2 * k - size)))
        for k in range(size + 1)
    )
    assert 0 < exact <= group_delta


def test_a_size_below_one_is_a_programmers_error():
    with pytest.raises(ValueError, match="size=0"):
        group_privacy(1.0, 0.0, size=0)
