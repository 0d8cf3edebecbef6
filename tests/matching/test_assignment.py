import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dpmed.matching.assignment import UNMATCHED, assign

matrices = st.tuples(st.integers(1, 5), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(0, 1))
)


@settings(max_examples=60, deadline=None)
@given(matrices)
def test_nearest_is_the_least_of_each_row(distances):
    found = assign(distances, "nearest")
    assert (found.distances == distances.min(1)).all()
    assert (distances[np.arange(len(distances)), found.nearest] == found.distances).all()


@settings(max_examples=60, deadline=None)
@given(matrices)
def test_one_to_one_uses_none_twice_and_no_other_way_is_better(distances):
    found = assign(distances, "one-to-one")
    rows, columns = distances.shape
    used = found.nearest[found.nearest != UNMATCHED]
    assert len(set(used)) == len(used) == min(rows, columns)
    assert (np.isnan(found.distances) == (found.nearest == UNMATCHED)).all()
    if rows <= columns:
        ways = (distances[range(rows), list(way)].sum() for way in itertools.permutations(range(columns), rows))
    else:
        ways = (distances[list(way), range(columns)].sum() for way in itertools.permutations(range(rows), columns))
    assert np.nansum(found.distances) == pytest.approx(min(ways), abs=1e-12)


@pytest.mark.parametrize("assignment", ["nearest", "one-to-one"])
def test_without_reconstructions_nothing_is_matched(assignment):
    found = assign(np.zeros((3, 0)), assignment)
    assert (found.nearest == UNMATCHED).all() and np.isnan(found.distances).all()


def test_a_distance_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="finite"):
        assign(np.array([[np.nan]]), "nearest")
