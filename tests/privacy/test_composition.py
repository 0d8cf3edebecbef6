"""Composition on a grid: against explicit convolution and quadrature, and what makes it an upper bound."""

import numpy as np
import pytest
from scipy import integrate, stats

from dpmed.privacy.composition import compose, fit_window, grid_step, share_by_place, share_under_p, share_under_q
from dpmed.privacy.losses import Relaxed, WorstCase
from dpmed.privacy.quadrature import quadrature


def window_of(step, steps, tilt=0.0, error=1e-4):
    return fit_window(quadrature(step), base=step.lowest, steps=steps, tilt=tilt, variance_error=error, side="both")


@pytest.mark.parametrize("step", [WorstCase(0.2, 0.7), Relaxed(0.2, 0.7), WorstCase(1e-3, 3.0)])
@pytest.mark.parametrize("tilt", [-2.0, 0.3, 2.0])
def test_cumulants_agree_with_quadrature_of_another_kind(step, tilt):
    low, high = step.intervals[0]
    half = 2 if step.log_mass else 1

    def moment(power):
        def integrand(x):
            loss = float(step.loss(np.asarray([x]))[0])
            return half * stats.norm.pdf(x) * loss**power * np.exp(tilt * loss)

        return integrate.quad(integrand, low, high, limit=400, epsabs=1e-14, epsrel=1e-10)[0]

    total, mean = moment(0), moment(1) / moment(0)
    found = quadrature(step).cumulants(tilt)
    assert found[0] == pytest.approx(np.log(total), rel=1e-6, abs=1e-9)
    assert found[1] == pytest.approx(mean, rel=1e-6, abs=1e-9)
    assert found[2] == pytest.approx(moment(2) / total - mean**2, rel=1e-5)


@pytest.mark.parametrize("step", [WorstCase(0.2, 0.7), Relaxed(0.4, 1.0)])
def test_both_measures_keep_their_mass_and_their_ratio_is_the_grids(step):
    window = window_of(step, 1)
    under_p = grid_step(step, window, anchor=0.0, share=share_under_p)
    under_q = grid_step(step, window, anchor=1.0, share=share_under_q)
    grid = step.lowest + (under_p.first + np.arange(len(under_p.masses))) * window.spacing
    q = under_q.masses * np.exp(under_q.log_moment + (1 - window.tilt) * grid)
    p = under_p.masses * np.exp(under_p.log_moment - window.tilt * grid)
    assert p.sum() == pytest.approx(1, abs=1e-9)
    assert q.sum() == pytest.approx(1, abs=1e-9)
    big = p > 1e-12
    np.testing.assert_allclose(q[big] / p[big], np.exp(grid[big]), rtol=1e-5)


@pytest.mark.parametrize("tilt", [-1.5, 0.0, 2.5])
def test_composition_is_the_explicit_convolution(tilt):
    step = WorstCase(0.3, 0.8)
    window = window_of(step, 5, tilt=tilt)
    single = grid_step(step, window, anchor=0.0, share=share_by_place)
    composed = compose(single, window, base=step.lowest, steps=5, anchor=0.0)
    wanted = single.masses
    for _ in range(4):
        wanted = np.convolve(wanted, single.masses)
    losses = 5 * (step.lowest + single.first * window.spacing) + np.arange(len(wanted)) * window.spacing
    mean = wanted @ losses
    assert composed.masses @ composed.losses == pytest.approx(mean, abs=1e-6)
    shared = np.interp(composed.losses, losses, wanted, left=0, right=0)
    np.testing.assert_allclose(composed.masses, shared, atol=1e-9)
    # Without the tilt it is the convolution of what the steps were without it, also where that is next to nothing.
    grid = step.lowest + (single.first + np.arange(len(single.masses))) * window.spacing
    plain = single.masses * np.exp(single.log_moment - tilt * grid)
    wanted = plain
    for _ in range(4):
        wanted = np.convolve(wanted, plain)
    clear = composed.masses > 1e-8 * composed.masses.max()
    found = composed.untilted()[clear]
    np.testing.assert_allclose(found, np.interp(composed.losses[clear], losses, wanted), rtol=1e-6)


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
