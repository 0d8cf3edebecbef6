from itertools import pairwise

import numpy as np
import pytest

from dpmed.data.phantom.strokes import WAYS, Stroke, inked, way_points


def test_every_digit_has_ways_within_its_box():
    assert sorted(WAYS) == list(range(10)) and all(len(ways) >= 3 for ways in WAYS.values())
    for ways in WAYS.values():
        points = np.array([point for way in ways for stroke in way for point in stroke.points])
        assert points.min() >= 0 and points.max() <= 1


@pytest.mark.parametrize("smooth", [True, False])
def test_a_stroke_passes_its_points_and_wanders_only_if_asked_to(smooth):
    stroke = Stroke(((0.1, 0.2), (0.8, 0.3), (0.4, 0.9)), smooth=smooth)
    (chain,) = way_points((stroke,), np.random.default_rng(0), wander=0.0)
    for point in stroke.points:
        assert np.hypot(*(chain - point).T).min() < 1e-9
    (moved,) = way_points((stroke,), np.random.default_rng(0), wander=0.05)
    assert 0.005 < np.abs(moved - chain).max() < 0.3


def test_ink_is_what_lies_within_half_a_width_by_a_slow_loop():
    chains = [np.array([[2.0, 2.0], [13.0, 5.0], [6.0, 14.0]]), np.array([[1.0, 12.0], [3.0, 12.0]])]
    found = inked(chains, 16, width=3.0)
    for y in range(16):
        for x in range(16):
            place, nearest = np.array([x + 0.5, y + 0.5]), np.inf
            for chain in chains:
                for start, end in pairwise(chain):
                    shares = np.linspace(0, 1, 2001)[:, None]
                    nearest = min(nearest, np.hypot(*(start + shares * (end - start) - place).T).min())
            if abs(nearest - 1.5) > 1e-3:
                assert found[y, x] == (nearest < 1.5)
