"""Overlapping windows against a slow loop over voxels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.inference.volumes.windows import corners, gaussian_weights, predict_windows

SIDES = st.integers(1, 9)


@settings(deadline=None)
@given(st.lists(st.tuples(SIDES, st.integers(0, 15)), min_size=3, max_size=3))
def test_windows_cover_all_and_lie_inside_at_most_half_a_window_apart(sides):
    window = tuple(wide for wide, _ in sides)
    space = tuple(wide + more for wide, more in sides)
    covered = np.zeros(space, bool)
    places = corners(space, window)
    for place in places:
        box = tuple(slice(a, a + b) for a, b in zip(place, window, strict=True))
        assert covered[box].shape == window
        covered[box] = True
    assert covered.all()
    for axis, wide in enumerate(window):
        starts = sorted({place[axis] for place in places})
        assert max(np.diff(starts), default=0) <= max(1, -(-wide // 2))


def test_a_window_larger_than_the_volume_is_the_callers_mistake():
    with pytest.raises(ValueError, match="to hold"):
        corners((4, 4, 4), (5, 4, 4))


def test_weights_are_those_of_a_gaussian_of_an_eighth_of_the_side():
    weights = gaussian_weights((8, 8, 8))[..., 0]
    assert weights.argmax() == np.ravel_multi_index((3, 3, 3), (8, 8, 8))
    assert weights[3, 3, 5] / weights[3, 3, 3] == pytest.approx(np.exp(-0.5 * (1.5**2 - 0.5**2)), rel=1e-5)
    assert weights.min() == pytest.approx(1e-3)


def test_the_mean_is_that_of_a_loop_over_voxels():
    random = np.random.default_rng(0)
    values = random.normal(size=(7, 5, 6, 2)).astype(np.float32)
    window = (4, 3, 6)

    def predict(windows):
        # Depends on the place in the window, as a network does near its edge.
        ramp = np.arange(np.prod(window), dtype=np.float32).reshape(1, *window, 1)
        return np.concatenate([windows[..., :1] * ramp, windows[..., 1:] + ramp, ramp + 0 * windows[..., :1]], axis=-1)

    found = predict_windows(values, window, predict, batch_size=3)
    weights = gaussian_weights(window)[..., 0]
    total, norm = np.zeros((7, 5, 6, 3)), np.zeros((7, 5, 6, 1))
    for place in corners((7, 5, 6), window):
        answer = predict(values[tuple(slice(a, a + b) for a, b in zip(place, window, strict=True))][None])[0]
        for i, j, k in np.ndindex(window):
            total[place[0] + i, place[1] + j, place[2] + k] += weights[i, j, k] * answer[i, j, k]
            norm[place[0] + i, place[1] + j, place[2] + k] += weights[i, j, k]
    np.testing.assert_allclose(found, total / norm, rtol=1e-5, atol=1e-5)


def test_what_does_not_depend_on_the_window_is_unchanged():
    values = np.random.default_rng(1).normal(size=(9, 8, 7, 1)).astype(np.float32)
    np.testing.assert_allclose(predict_windows(values, (4, 4, 4), lambda x: 2 * x, batch_size=5), 2 * values, rtol=1e-5)
