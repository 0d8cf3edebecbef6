"""One step on a grid: what makes it dominate the true pair."""

import numpy as np
import pytest

from dpmed.privacy.grid import Grid, grid_step, share_by_place, share_under_p, share_under_q
from dpmed.privacy.losses import Relaxed, WorstCase


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
