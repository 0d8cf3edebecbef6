"""The privacy loss of a step: against the densities themselves, and its inverse."""

import mpmath
import numpy as np
import pytest
from scipy import stats

from dpmed.privacy.loss.losses import Relaxed, WorstCase, step_loss

SETTINGS = [(0.3, 0.5), (1e-4, 2.0), (0.99, 0.01), (0.02, 6.0)]


@pytest.mark.parametrize(("rate", "shift"), SETTINGS)
def test_losses_are_the_log_ratios_of_the_densities(rate, shift):
    x = np.linspace(0.0, 8.0, 41)
    without, with_ = stats.norm.pdf(x), stats.norm.pdf(x, shift)
    mirrored = stats.norm.pdf(-x, shift)
    worst = np.log(((1 - rate) * without + rate * with_) / without)
    relaxed = np.log(((1 - rate) * 2 * without + rate * (with_ + mirrored)) / (2 * without))
    np.testing.assert_allclose(WorstCase(rate, shift).loss(x), worst, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(Relaxed(rate, shift).loss(x), relaxed, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("rate", "shift"), [(1e-9, 1e-5), (0.3, 1e-5), (1 - 1e-9, 3.0), (1e-7, 1e3), (0.5, 1e9)])
def test_losses_keep_their_digits_where_densities_leave_the_range_of_floats(rate, shift):
    x = np.asarray([1e-3, 0.5, 7.0, max(shift / 2, 1e-6), shift, shift + 8])
    with mpmath.workdps(60):
        rate_, shift_ = mpmath.mpf(rate), mpmath.mpf(shift)
        # The ratios of the normal densities with means μ and -μ to the one with mean 0.
        up = [mpmath.exp(shift_ * mpmath.mpf(float(y)) - shift_**2 / 2) for y in x]
        down = [mpmath.exp(-shift_ * mpmath.mpf(float(y)) - shift_**2 / 2) for y in x]
        worst = [float(mpmath.log(1 - rate_ + rate_ * a)) for a in up]
        relaxed = [float(mpmath.log(1 - rate_ + rate_ * (a + b) / 2)) for a, b in zip(up, down, strict=True)]
    # What is left of the difference x - μ/2 where both are huge, times μ.
    rounding = 1e-15 * shift * max(shift, 1.0)
    np.testing.assert_allclose(WorstCase(rate, shift).loss(x), worst, rtol=1e-10, atol=rate * rounding)
    # log cosh is taken from log 2, so its last digit is that of 1.
    np.testing.assert_allclose(Relaxed(rate, shift).loss(x), relaxed, rtol=1e-10, atol=rate * (rounding + 4e-16))


def test_with_full_batches_a_loss_far_below_zero_is_computed_without_a_warning():
    # Any warning is an error in tests.
    assert Relaxed(1.0, 20.0).loss(np.asarray([0.0, 1.0])) == pytest.approx([-200.0, -180.0 - np.log(2)], rel=1e-15)
    assert Relaxed(1.0, 20.0).lowest == -200.0


@pytest.mark.parametrize("kind", [WorstCase, Relaxed])
@pytest.mark.parametrize(("rate", "shift"), [*SETTINGS, (0.25, 1e3), (1e-7, 1e9)])
def test_place_undoes_loss_and_loss_rises(kind, rate, shift):
    step = kind(rate, shift)
    x = np.linspace(max(0.1, shift - 5), shift + 5, 60)
    losses = step.loss(x)
    assert (np.diff(losses) >= 0).all()
    assert (losses >= step.lowest).all()
    clear = losses - step.lowest > 1e-6 * abs(step.lowest) + 1e-9
    np.testing.assert_allclose(step.place(losses)[clear], x[clear], rtol=1e-12, atol=1e-5)
    assert clear.mean() > 0.5


def test_the_support_holds_the_mass():
    for step in (WorstCase(0.1, 40.0), Relaxed(0.1, 40.0), WorstCase(0.1, 1.0)):
        inside = sum(stats.norm.cdf(b) - stats.norm.cdf(a) for a, b in step.intervals) * np.exp(step.log_mass)
        assert inside == pytest.approx(1, abs=1e-12)


def test_names_choose_the_adversary():
    assert isinstance(step_loss("worst-case", sampling_rate=0.1, noise_multiplier=2.0), WorstCase)
    assert step_loss("relaxed", sampling_rate=0.1, noise_multiplier=2.0) == Relaxed(0.1, 0.5)
