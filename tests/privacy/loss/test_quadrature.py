"""Points that carry a step's mass: against adaptive integration, and the rules and roots against closed forms."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from dpmed.privacy.loss.losses import Gaussian, Relaxed, WorstCase
from dpmed.privacy.loss.quadrature import gauss, quadrature, root

STEPS = [WorstCase(0.3, 0.5), WorstCase(1e-3, 3.0), Relaxed(0.2, 1.5), Gaussian(0.7)]


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_the_points_carry_all_of_p_and_tilted_by_the_loss_all_of_q(step):
    points = quadrature(step)
    assert np.exp(points.log_mass_p).sum() == pytest.approx(1, rel=1e-10)
    # E_P[exp L] is the mass of Q.
    assert np.exp(points.log_mass_p + points.losses).sum() == pytest.approx(1, rel=1e-10)
    assert points.slack == 0


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_the_mean_loss_is_that_of_adaptive_integration(step):
    points = quadrature(step)
    factor = math.exp(step.log_mass)

    def density_times_loss(x):
        return float(step.loss(np.asarray([x]))[0]) * factor * stats.norm.pdf(x)

    wanted = sum(
        integrate.quad(density_times_loss, max(low, -12.0), min(high, 12.0), limit=400, epsabs=1e-13)[0]
        for low, high in step.intervals
        if high > -12 and low < 12
    )
    assert np.vdot(np.exp(points.log_mass_p), points.losses) == pytest.approx(wanted, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize(("points", "exact"), [(2, 3), (4, 7)])
def test_a_rule_of_n_points_is_exact_to_degree_2n_minus_1(points, exact):
    low, high = np.asarray([-1.0, 0.5]), np.asarray([0.5, 2.0])
    for degree in range(exact + 2):
        places, weights = gauss(low, high, points)
        found = (weights * places**degree).sum(axis=1)
        wanted = (high ** (degree + 1) - low ** (degree + 1)) / (degree + 1)
        if degree <= exact:
            np.testing.assert_allclose(found, wanted, rtol=1e-12)
        else:
            assert np.abs(found - wanted).max() > 1e-5


def test_a_root_is_found_over_many_orders_and_an_end_where_it_lies_beyond():
    for place in (-1e6, -1e-3, 1e-6, 2.5, 1e6):
        assert root(lambda x, place=place: x - place, -1e9, 1e9) == pytest.approx(place, rel=1e-5, abs=1e-6)
    assert root(lambda x: x + 10, 0.0, 5.0) == 0.0
    assert root(lambda x: x - 10, 0.0, 5.0) == 5.0
