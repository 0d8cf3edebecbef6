"""One step on a grid: what makes it dominate the true pair."""

import numpy as np
import pytest

from dpmed.privacy.loss.grid import Grid, grid_step, share_by_place, share_under_p, share_under_q
from dpmed.privacy.loss.losses import Relaxed, WorstCase


@pytest.mark.parametrize("step", [WorstCase(0.2, 0.7), Relaxed(0.4, 1.0)])
def test_both_measures_keep_their_mass_and_their_ratio_is_the_grids(step):
    grid = Grid(0.0, 0.01, 0, round((step.loss(np.asarray([8.0]))[0] - step.lowest) / 0.01))
    under_p = grid_step(step, grid, anchor=0.0, share=share_under_p)
    under_q = grid_step(step, grid, anchor=1.0, share=share_under_q)
    losses = step.lowest + (under_p.first + np.arange(len(under_p.masses))) * grid.spacing
    q = under_q.masses * np.exp(under_q.log_moment + (1 - grid.tilt) * losses)
    p = under_p.masses * np.exp(under_p.log_moment - grid.tilt * losses)
    assert p.sum() == pytest.approx(1, abs=1e-9)
    assert q.sum() == pytest.approx(1, abs=1e-9)
    big = p > 1e-12
    np.testing.assert_allclose(q[big] / p[big], np.exp(losses[big]), rtol=1e-5)


def test_splits_lie_between_zero_and_one_and_agree_across_measures():
    offset, spacing = np.linspace(0, 0.3, 31), 0.3
    for share in (share_under_p, share_under_q, share_by_place):
        values = share(offset, spacing)
        assert values[0] == 0
        assert values[-1] == pytest.approx(1)
        assert (np.diff(values) > 0).all()
    # Q's mass is e^loss times P's, at the point and at the upper end.
    np.testing.assert_allclose(
        share_under_q(offset, spacing) * np.exp(offset), share_under_p(offset, spacing) * np.exp(spacing), rtol=1e-12
    )
    # At the lower end, whose loss is 0 here, both have the same.
    np.testing.assert_allclose(
        (1 - share_under_q(offset, spacing)) * np.exp(offset), 1 - share_under_p(offset, spacing), atol=1e-14
    )


@pytest.mark.parametrize("centre", [0.0, 0.3, 2.0, 99.0])
def test_grid_points_are_left_out_only_far_from_where_the_mass_is(centre):
    grid = Grid(0.5, 1e-3, 40, 20_000, centre=centre, widening=0.02, widest=0.05)
    used = grid.used()
    gaps = np.diff(used)
    assert used[0] == 40
    assert used[-1] == 20_000
    assert gaps.min() >= 1
    assert gaps.max() * 1e-3 <= 0.05 + 1e-9
    near = np.minimum(np.abs(used[1:] - centre / 1e-3), np.abs(used[:-1] - centre / 1e-3))
    assert (gaps <= np.maximum(0.02 * near, 0) + 1).all()
    assert len(used) < 3000
    assert Grid(0.5, 1e-3, 40, 20_000).used().tolist() == list(range(40, 20_001))


@pytest.mark.parametrize("step", [WorstCase(1e-3, 1.5), Relaxed(0.1, 1.0)])
def test_with_points_left_out_both_measures_keep_their_mass_and_hardly_more_is_added(step):
    last = round((step.loss(np.asarray([9.0]))[0] - step.lowest) / 1e-4)
    variances = []
    for widening in (0.0, 0.02):
        grid = Grid(0.0, 1e-4, 0, last, centre=-step.lowest, widening=widening, widest=0.05)
        for anchor, share in ((0.0, share_under_p), (1.0, share_under_q)):
            single = grid_step(step, grid, anchor=anchor, share=share)
            losses = step.lowest + (single.first + np.arange(len(single.masses))) * 1e-4
            masses = single.masses * np.exp(single.log_moment + anchor * losses)
            assert masses.sum() == pytest.approx(1, abs=1e-9)
            variances.append(masses @ np.square(losses - masses @ losses))
    # A gap of a share w of the distance from the mean adds at most w²/4 of the variance.
    assert variances[0] <= variances[2] <= variances[0] * (1 + 1.2e-4)
    assert variances[1] <= variances[3] <= variances[1] * (1 + 1.2e-4)
