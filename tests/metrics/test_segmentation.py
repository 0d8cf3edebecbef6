"""Dice of masks against scikit-learn's F1 and a loop; absent classes do not count."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from dpmed.metrics.segmentation import by_sample, dice

NAMES = ("background", "organ", "tumour")


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    space=st.sampled_from([(4, 5), (3, 4, 2)]),
    classes=st.integers(2, 4),
    dtypes=st.sampled_from([(np.uint8, np.uint8), (np.uint8, np.int32), (np.int32, np.uint8)]),
)
def test_dice_of_each_class_is_scikit_learns_f1_of_its_voxels(seed, space, classes, dtypes):
    rng = np.random.default_rng(seed)
    # The last class is rare, hence often absent.
    mask, target = (np.minimum(rng.integers(0, 6 * classes, space) // 5, classes - 1).astype(dtype) for dtype in dtypes)
    found = dice(mask, target, classes=classes)
    for label in range(classes):
        if label in mask or label in target:
            wanted = f1_score((target == label).ravel(), (mask == label).ravel(), zero_division=0.0)
            assert found[label] == pytest.approx(wanted)
        else:
            assert np.isnan(found[label])


def test_known_masks():
    target = np.array([[0, 0, 1, 1]])
    mask = np.array([[0, 1, 1, 0]])
    np.testing.assert_allclose(dice(mask, target, classes=3), [0.5, 0.5, np.nan])
    np.testing.assert_allclose(dice(np.zeros_like(mask), target, classes=3), [2 * 2 / 6, 0.0, np.nan])
    np.testing.assert_allclose(dice(target, target, classes=3), [1.0, 1.0, np.nan])


def test_hundreds_of_classes_and_many_voxels_are_counted_apart():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 250, (40, 40, 3)).astype(np.uint8)
    found = dice(target, target, classes=251)
    np.testing.assert_array_equal(found[:250], 1.0)
    assert np.isnan(found[250])


def slow_means(masks, targets, classes):
    """Per scan the mean over the classes that occur in either mask, with and without the first."""
    table = {"dice": [], "dice_with_background": []}
    for mask, target in zip(masks, targets, strict=True):
        values = []
        for label in range(classes):
            a, b = set(np.flatnonzero(mask == label)), set(np.flatnonzero(target == label))
            values.append(2 * len(a & b) / (len(a) + len(b)) if a or b else None)
        for name, part in (("dice", values[1:]), ("dice_with_background", values)):
            known = [value for value in part if value is not None]
            table[name].append(sum(known) / len(known) if known else np.nan)
    return table


@pytest.mark.parametrize("space", [(4, 4), (2, 3, 3)])
def test_means_of_a_scan_leave_out_absent_classes(space):
    rng = np.random.default_rng(1)
    masks, targets = rng.integers(0, 3, (2, 12, *space)).astype(np.uint8)
    for place, kept in enumerate([0, 1, 2]):
        masks[place] = np.minimum(masks[place], kept)
        targets[place] = np.minimum(targets[place], kept)
    table = by_sample(("dice", "dice_with_background"), masks, targets, class_names=NAMES)
    for name, values in slow_means(masks, targets, 3).items():
        np.testing.assert_allclose(table[name], values)
    assert np.isnan(table["dice"][0])
    assert np.isnan(table["dice_tumour"][1])
    assert list(table) == ["dice", "dice_with_background", *(f"dice_{name}" for name in NAMES)]


def test_only_the_named_means_are_given():
    masks = np.zeros((1, 2, 2), np.uint8)
    assert list(by_sample((), masks, masks, class_names=NAMES)) == [f"dice_{name}" for name in NAMES]
