"""Composition on a grid: against explicit convolution, for steps of one and of several kinds."""

import numpy as np
import pytest

from dpmed.privacy.composition import compose, fit_window
from dpmed.privacy.grid import grid_step, share_by_place
from dpmed.privacy.losses import Gaussian, WorstCase
from dpmed.privacy.summed import Repeated, summed_loss

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
        losses = part.step.lowest + (single.first + np.arange(len(single.masses))) * window.spacing
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


def test_the_window_is_as_fine_as_asked_for():
    summed = summed_loss(PARTS)
    coarse, fine = (fit_window(summed, tilt=0.5, variance_error=error, side="both") for error in (1e-4, 1e-6))
    assert coarse.size > fine.size / 32
    assert fine.spacing < coarse.spacing
    added = [compose(summed, window, anchor=0.0, share=share_by_place).masses for window in (coarse, fine)]
    variances = [
        float(mass @ np.square(np.arange(len(mass)) * window.spacing))
        - float(mass @ np.arange(len(mass)) * window.spacing) ** 2
        for mass, window in zip(added, (coarse, fine), strict=True)
    ]
    true = summed.cumulants(0.5)[2]
    assert abs(variances[1] - true) < abs(variances[0] - true) < 2e-4
