"""Composition on grids: against explicit convolution, for steps of one and of several kinds, on one grid and on two."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from dpmed.privacy.loss.composition import compose, lost_above, lost_below
from dpmed.privacy.loss.grid import grid_step, share_by_place, share_under_p, share_under_q
from dpmed.privacy.loss.losses import Gaussian, WorstCase
from dpmed.privacy.loss.summed import Repeated, summed_loss
from dpmed.privacy.loss.window import fit_window

PARTS = (Repeated(WorstCase(0.3, 0.8), 3), Repeated(WorstCase(0.1, 1.5), 2), Repeated(Gaussian(0.5), 1))


@pytest.mark.parametrize("parts", [PARTS[:1], PARTS])
@pytest.mark.parametrize("tilt", [-1.5, 0.0, 2.5])
def test_composition_is_the_explicit_convolution(tilt, parts):
    summed = summed_loss(parts)
    window = fit_window(summed, tilt=tilt, variance_error=1e-4, side="both")
    composed = compose(summed, window, anchor=0.0, share=share_by_place)
    tilted, plain, low = np.ones(1), np.ones(1), 0.0
    for part, grid in zip(parts, window.grids, strict=True):
        single = grid_step(part.step, grid, anchor=0.0, share=share_by_place)
        losses = part.step.lowest + (single.first + np.arange(len(single.masses))) * window.fine
        untilted = single.masses * np.exp(single.log_moment - tilt * losses)
        low += part.times * losses[0]
        for _ in range(part.times):
            tilted, plain = np.convolve(tilted, single.masses), np.convolve(plain, untilted)
    losses = low + np.arange(len(tilted)) * window.spacing
    assert composed.masses @ composed.losses == pytest.approx(tilted @ losses, abs=1e-6)
    np.testing.assert_allclose(composed.masses, np.interp(composed.losses, losses, tilted, left=0, right=0), atol=1e-9)
    # Without the tilt it is the convolution of what the steps were without it, also where that is next to nothing.
    clear = composed.masses > 1e-8 * composed.masses.max()
    found = composed.untilted()[clear]
    np.testing.assert_allclose(found, np.interp(composed.losses[clear], losses, plain), rtol=1e-6)


def both_ways(parts, tilt, error=1e-5):
    """The same sum on one grid and, with few bundles of steps, on two."""
    summed = summed_loss(parts)
    two = fit_window(summed, tilt=tilt, variance_error=error, side="both")
    counts = tuple(part.times for part in parts)
    alone = dataclasses.replace(two.bundles[0], counts=counts, repeats=1, low=two.low, high=two.high)
    return summed, two, dataclasses.replace(two, ratio=1, bundles=(alone,))


MANY = (Repeated(WorstCase(0.3, 0.4), 1500), Repeated(WorstCase(0.02, 1.0), 701), Repeated(Gaussian(0.5), 1))


@pytest.mark.parametrize(("tilt", "anchor", "share"), [(2.5, 1.0, share_under_q), (-1.0, 0.0, share_under_p)])
def test_two_grids_bound_what_one_grid_bounds_and_hardly_more(tilt, anchor, share):
    summed, two, one = both_ways(MANY, tilt)
    assert two.ratio > 1
    assert len(two.bundles) == 2
    counts = [bundle.repeats * np.asarray(bundle.counts) for bundle in two.bundles]
    assert (sum(counts) == [1500, 701, 1]).all()
    tails = []
    for window in (one, two):
        composed = compose(summed, window, anchor=anchor, share=share)
        assert composed.masses.sum() == pytest.approx(1, rel=1e-9)
        sign = 1.0 if anchor else -1.0
        places = summed.mean(tilt) + sign * math.sqrt(summed.cumulants(tilt)[2]) * np.asarray([-1.0, 0.0, 2.0])
        # δ at some ε: what a bound is read off, and convex, so that spreading a mass never lowers it.
        gain = np.maximum(-np.expm1(sign * (places[:, None] - composed.losses)), 0.0)
        tails.append(gain @ composed.untilted())
    assert (tails[1] >= tails[0] * (1 - 1e-9)).all()
    np.testing.assert_allclose(tails[1], tails[0], rtol=1e-4)
    # Next to nothing is lost on the way to the coarse grid.
    assert (lost_above if anchor else lost_below)(summed, two) < 1e-9 * tails[0][1]


@pytest.mark.parametrize(("tilt", "anchor"), [(0.2, 0.0), (0.8, 1.0)])
def test_a_real_test_stays_one_on_two_grids(tilt, anchor):
    # Rounded at random by place, P's and Q's sums have each the true mean, and a variance that the grids add to. The
    # tilt is near the anchor: the transform's rounding, 1e-15 of all mass, grows by exp(loss times their distance), and
    # a distance of 0.5 made it 1e-7 on some processors.
    summed, two, _ = both_ways(MANY, tilt)
    assert two.ratio > 1
    composed = compose(summed, two, anchor=anchor, share=share_by_place)
    masses = composed.untilted()
    moment, mean, variance = summed.cumulants(anchor)
    assert moment == pytest.approx(0, abs=1e-9)
    assert masses.sum() == pytest.approx(1, rel=1e-6)
    assert masses @ composed.losses == pytest.approx(mean, rel=1e-6)
    added = masses @ np.square(composed.losses - mean) - variance
    assert -1e-7 * variance < added < 2e-5


def test_what_is_lost_of_a_normal_loss_is_bounded():
    summed = summed_loss((Repeated(Gaussian(2.0), 1),))
    window = fit_window(summed, tilt=1.0, variance_error=1e-4, side="both")
    narrow = dataclasses.replace(window, bundles=(dataclasses.replace(window.bundles[0], low=-4.0, high=9.0),))
    assert stats.norm.sf((9.0 - 2.0) / 2.0) <= lost_above(summed, narrow) <= 20 * stats.norm.sf((9.0 - 2.0) / 2.0)
    assert stats.norm.cdf((-4.0 + 2.0) / 2.0) <= lost_below(summed, narrow) <= 20 * stats.norm.cdf((-4.0 + 2.0) / 2.0)
