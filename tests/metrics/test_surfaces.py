"""Surface Dice and the Hausdorff distance against loops over all pairs of surface voxels."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.metrics.surfaces import by_sample, surface_scores


def surface_in_loops(mask):
    found = []
    for place in itertools.product(*map(range, mask.shape)):
        if not mask[place]:
            continue
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            other = list(place)
            other[axis] += step
            outside = not 0 <= other[axis] < mask.shape[axis]
            if outside or not mask[tuple(other)]:
                found.append(place)
                break
    return np.array(found)


def in_loops(mask, target, spacing, tolerance):
    one, two = surface_in_loops(mask) * np.array(spacing), surface_in_loops(target) * np.array(spacing)
    there = np.array([min(np.sqrt(((a - b) ** 2).sum()) for b in two) for a in one])
    back = np.array([min(np.sqrt(((a - b) ** 2).sum()) for a in one) for b in two])
    dice = ((there <= tolerance).sum() + (back <= tolerance).sum()) / (len(there) + len(back))
    return dice, max(np.percentile(there, 95), np.percentile(back, 95))


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    space=st.sampled_from([(7, 9), (5, 6, 4)]),
    density=st.sampled_from([0.05, 0.5, 0.95]),
    tolerance=st.sampled_from([0.0, 1.3, 2.9]),
)
def test_scores_are_those_of_all_pairs_of_surface_voxels(seed, space, density, tolerance):
    generator = np.random.default_rng(seed)
    mask, target = generator.random((2, *space)) < density
    mask.flat[0] = target.flat[-1] = True
    spacing = (0.7, 1.1, 2.6)[: len(space)]
    found = surface_scores(mask, target, spacing=spacing, tolerance=tolerance)
    dice, hausdorff = in_loops(mask, target, spacing, tolerance)
    assert found.surface_dice == pytest.approx(dice, abs=1e-9)
    assert found.hausdorff95 == pytest.approx(hausdorff, abs=1e-4)


def test_a_moved_box_is_as_far_as_it_was_moved_in_mm():
    target = np.zeros((12, 10, 10), bool)
    target[2:6, 2:8, 2:8] = True
    mask = np.roll(target, 3, axis=0)
    found = surface_scores(mask, target, spacing=(1.5, 1.0, 1.0), tolerance=4.5)
    assert found.hausdorff95 == pytest.approx(4.5) and found.surface_dice == 1.0
    assert surface_scores(mask, target, spacing=(1.5, 1.0, 1.0), tolerance=1.0).surface_dice < 0.8


def test_a_missing_class_has_no_distance_and_an_absent_one_no_score():
    full, empty = np.ones((3, 3), bool), np.zeros((3, 3), bool)
    missed = surface_scores(empty, full, spacing=(1.0, 1.0), tolerance=1.0)
    assert missed.surface_dice == 0.0 and np.isnan(missed.hausdorff95)
    absent = surface_scores(empty, empty, spacing=(1.0, 1.0), tolerance=1.0)
    assert np.isnan(absent.surface_dice) and np.isnan(absent.hausdorff95)


def test_means_are_over_the_classes_that_have_a_score():
    target = np.zeros((2, 8, 8), np.uint8)
    target[:, :4, :4], target[1, 6:, 6:] = 1, 2
    mask = target.copy()
    mask[1][mask[1] == 2] = 0
    spacings = np.array([[1.0, 1.0], [2.0, 2.0]])
    table = by_sample(mask, target, class_names=("none", "a", "b"), spacings=spacings, tolerance=1.0)
    np.testing.assert_array_equal(table["surface_dice_a"], [1.0, 1.0])
    np.testing.assert_array_equal(table["surface_dice_b"], [np.nan, 0.0])
    np.testing.assert_array_equal(table["surface_dice"], [1.0, 0.5])
    np.testing.assert_array_equal(table["hausdorff95"], [0.0, 0.0])
