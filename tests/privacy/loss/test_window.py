"""Where a sum is looked at: it holds the tilted mass, finely enough, with few points however many the steps."""

import math

import numpy as np
import pytest
from scipy import stats

from dpmed.privacy.loss.composition import compose
from dpmed.privacy.loss.grid import share_by_place
from dpmed.privacy.loss.losses import Gaussian, Relaxed, WorstCase
from dpmed.privacy.loss.summed import Repeated, summed_loss
from dpmed.privacy.loss.window import _shared_out, fit_window


@pytest.mark.parametrize("tilt", [-0.5, 0.5, 2.0])
def test_the_window_holds_a_normal_loss(tilt):
    summed = summed_loss((Repeated(Gaussian(1.5), 1),))
    window = fit_window(summed, tilt=tilt, variance_error=1e-4, side="both")
    mean = (tilt - 0.5) * 1.5**2
    outside = stats.norm.sf((window.high - mean) / 1.5) + stats.norm.cdf((window.low - mean) / 1.5)
    assert 1e-22 < outside < 2e-18


@pytest.mark.parametrize("side", ["above", "below", "both"])
@pytest.mark.parametrize("parts", [
    (Repeated(WorstCase(0.3, 0.8), 30),),
    (Repeated(WorstCase(0.01, 1.2), 4000), Repeated(Relaxed(1.0, 0.1), 300)),
])  # fmt: skip
def test_the_grids_add_as_little_variance_as_asked_for(parts, side):
    summed = summed_loss(parts)
    tilt = {"above": 1.5, "below": -0.5, "both": 0.5}[side]
    true = summed.cumulants(tilt)[2]
    for error in (1e-3, 1e-5):
        window = fit_window(summed, tilt=tilt, variance_error=error, side=side)
        composed = compose(summed, window, anchor=tilt, share=share_by_place)
        mean = float(composed.masses @ composed.losses)
        added = float(composed.masses @ np.square(composed.losses - mean)) - true
        assert -1e-6 * true <= added <= error + 1e-6 * true


def test_ten_million_steps_need_hardly_more_points_than_a_thousand():
    sizes = []
    for steps in (10**3, 10**7):
        summed = summed_loss((Repeated(WorstCase(1e-3, 0.5), steps),))
        # As much as a ten-thousandth of the spread moves the answer.
        window = fit_window(summed, tilt=1.5, variance_error=1e-4 * summed.cumulants(1.5)[2], side="both")
        fine = max(bundle.high - bundle.low for bundle in window.bundles) / window.fine
        sizes.append(max(fine, (window.high - window.low) / window.spacing))
    assert sizes[1] < 20 * sizes[0]
    assert sizes[1] < 0.1 * sizes[0] * math.sqrt(10**4)


def test_where_next_to_all_mass_is_in_one_point_its_rounding_is_not_the_scale():
    summed = summed_loss((Repeated(WorstCase(1e-9, 1e-3), 10),))
    window = fit_window(summed, tilt=0.5, variance_error=1e-30, side="both")
    assert window.high - window.low >= 0.9e-7 * abs(summed.base)


def test_bundles_hold_every_step_once_and_what_is_left_over_is_shared_out():
    parts = tuple(Repeated(WorstCase(0.01 * (kind + 1), 1.0), 400 + 37 * kind) for kind in range(30))
    summed = summed_loss(parts)
    window = fit_window(summed, tilt=1.5, variance_error=1e-3, side="both")
    assert window.ratio > 1
    assert 2 <= len(window.bundles) < 40
    counts = sum(bundle.repeats * np.asarray(bundle.counts) for bundle in window.bundles)
    assert counts.tolist() == [part.times for part in parts]
    widths = [bundle.high - bundle.low for bundle in window.bundles]
    assert max(widths) < 4 * widths[0]


def test_what_is_left_over_is_shared_out_without_loss_in_bundles_that_are_not_too_wide():
    rest, equal, variances = [7, 0, 90, 3, 40], [1, 2, 1, 0, 3], np.asarray([1.0, 0.5, 0.2, 4.0, 0.0])
    shared = _shared_out(rest, equal, variances)
    assert np.sum(shared, axis=0).tolist() == rest
    room = 4 * float(np.asarray(equal) @ variances)
    assert all(float(np.asarray(one) @ variances) <= room + variances.max() for one in shared)
    assert len(shared) <= math.ceil(float(np.asarray(rest) @ variances) / (room - variances.max())) + 1


def test_a_number_of_bundles_that_divides_the_steps_leaves_none_over():
    summed = summed_loss((Repeated(WorstCase(1e-3, 1.0), 10**6),))
    window = fit_window(summed, tilt=1.5, variance_error=1e-4 * summed.cumulants(1.5)[2], side="both")
    (bundle,) = window.bundles
    assert bundle.repeats * bundle.counts[0] == 10**6
