"""Sums of losses of several kinds: moments by another quadrature, and that cumulants of independent steps add up."""

import numpy as np
import pytest
from scipy import integrate, stats

from dpmed.privacy.loss.losses import Capped, Gaussian, Relaxed, WorstCase
from dpmed.privacy.loss.summed import Repeated, ever, parts_of, summed_loss
from dpmed.privacy.mechanism import SampledGaussian


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
    found = summed_loss((Repeated(step, 1),)).cumulants(tilt)
    assert found[0] == pytest.approx(np.log(total), rel=1e-6, abs=1e-9)
    assert found[1] == pytest.approx(mean, rel=1e-6, abs=1e-9)
    assert found[2] == pytest.approx(moment(2) / total - mean**2, rel=1e-5)


@pytest.mark.parametrize("tilt", [-2.0, -1e-7, 0.3, 1 - 1e-7, 1 + 1e-7, 2.0])
def test_cumulants_of_independent_steps_add_up(tilt):
    # Supports of different lengths, one with a part left out.
    parts = (
        Repeated(WorstCase(0.2, 0.7), 3),
        Repeated(Relaxed(0.4, 30.0), 5),
        Repeated(Gaussian(0.4), 1),
        Repeated(Capped(WorstCase(0.3, 1.0), 4.0), 2),
    )
    each = [summed_loss((Repeated(part.step, 1),)).cumulants(tilt) for part in parts]
    wanted = sum(np.asarray(one) * part.times for one, part in zip(each, parts, strict=True))
    np.testing.assert_allclose(summed_loss(parts).cumulants(tilt), wanted, rtol=1e-11)


@pytest.mark.parametrize("tilt", [-1.0, 0.4, 3.0])
def test_the_gaussian_mechanism_has_the_cumulants_of_a_normal_loss(tilt):
    shift = 0.8
    moment, mean, variance = summed_loss((Repeated(Gaussian(shift), 1),)).cumulants(tilt)
    assert moment == pytest.approx(0.5 * tilt * (tilt - 1) * shift**2, rel=1e-9)
    assert mean == pytest.approx((tilt - 0.5) * shift**2, rel=1e-9)
    assert variance == pytest.approx(shift**2, rel=1e-9)


def test_full_batches_are_one_gaussian_only_to_who_knows_the_sign():
    mechanisms = [SampledGaussian(noise_multiplier=n, sampling_rate=1.0, steps=t) for n, t in ((3.0, 9), (4.0, 16))]
    (gaussian,) = parts_of(mechanisms, "worst-case")
    assert gaussian.times == 1
    assert gaussian.step.shift == pytest.approx(np.sqrt(2))
    relaxed = parts_of(mechanisms, "relaxed")
    assert [part.times for part in relaxed] == [9, 16]


def test_tails_are_bounded_by_chernoff():
    summed = summed_loss((Repeated(Gaussian(2.0), 1),))
    for place in (3.0, 6.0):
        bound = summed.chernoff_above(tilt=summed.tilt_for_mean(place), place=place)
        assert stats.norm.sf((place - 2.0) / 2.0) <= bound <= 1
        assert summed.chernoff_above(tilt=summed.tilt_for_mean(-place), place=-place) >= stats.norm.cdf(
            (-place + 2.0) / 2.0
        )


def test_ever_is_one_less_never():
    summed = summed_loss((Repeated(Gaussian(2.0), 1), Repeated(WorstCase(0.1, 1.0), 4)))
    assert ever(summed, np.asarray([0.1, 0.2])) == pytest.approx(1 - 0.9 * 0.8**4)
    assert ever(summed, np.asarray([0.1, 1.0])) == 1.0
