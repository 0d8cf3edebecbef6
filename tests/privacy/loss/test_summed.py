"""Sums of losses of several kinds: moments by another quadrature, and that cumulants of independent steps add up."""

import numpy as np
import pytest
from scipy import integrate, stats

from dpmed.privacy.loss import pld, window
from dpmed.privacy.loss.losses import Capped, Gaussian, Relaxed, WorstCase
from dpmed.privacy.loss.pld import pld_epsilon
from dpmed.privacy.loss.quadrature import NOTHING
from dpmed.privacy.loss.summed import Repeated, SummedLoss, ever, log_moments, parts_of, summed_loss
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


class Plain(SummedLoss):
    """All moments one by one, from their definitions, as before anything was kept or computed at once."""

    def mean(self, tilt):
        return self.cumulants(tilt)[1]

    def log_moment(self, tilt):
        anchor = 0 if tilt < 0.5 else 1
        exponent = (tilt - anchor) * self.losses
        log_mass = self.log_mass_p + anchor * self.losses
        matters = log_mass + np.maximum(exponent, 0) > -NOTHING
        is_near = (np.abs(exponent) * matters).max(axis=1) < 1
        found = np.zeros(len(self.parts))
        if is_near.any():
            gained = np.exp(log_mass[is_near]) * np.expm1(np.where(matters[is_near], exponent[is_near], 0.0))
            found[is_near] = np.log1p(gained.sum(axis=1) - self.missing[anchor, is_near])
        if not is_near.all():
            both = (log_mass + exponent)[~is_near]
            largest = both.max(axis=1)
            found[~is_near] = largest + np.log(np.exp(both - largest[:, None]).sum(axis=1))
        return float(self.times @ found)


def plain(parts):
    kept = summed_loss(parts)
    return Plain(kept.parts, kept.losses, kept.log_mass_p)


KINDS = [
    (Repeated(WorstCase(0.2, 0.7), 3),),
    (Repeated(WorstCase(1e-4, 40.0), 7),),
    (Repeated(WorstCase(0.2, 0.7), 3), Repeated(Relaxed(0.4, 30.0), 5), Repeated(Capped(WorstCase(0.3, 1.0), 4.0), 2)),
]


@pytest.mark.parametrize("parts", KINDS)
def test_moments_at_several_tilts_are_the_bits_of_each_alone(parts):
    distances = 10.0 ** np.random.default_rng(0).uniform(-9, 9, 100)
    tilts = [0.0, 1.0, *distances, *-distances, *(1 + distances), *(1 - distances)]
    summed, wanted = summed_loss(parts), plain(parts)
    found = log_moments(summed, tilts)
    assert found == [summed.log_moment(tilt) for tilt in tilts] == [wanted.log_moment(tilt) for tilt in tilts]
    assert [summed.mean(tilt) for tilt in tilts] == [wanted.mean(tilt) for tilt in tilts]
    assert log_moments(summed, []) == []


@pytest.mark.parametrize("seed", range(24))
def test_epsilon_is_the_same_bits_as_from_moments_one_by_one(seed, monkeypatch):
    random = np.random.default_rng(seed)
    mechanisms = [
        SampledGaussian(
            noise_multiplier=float(10 ** random.uniform(-1.5, 1.5)),
            sampling_rate=float(10 ** random.uniform(-4, 0)),
            steps=int(10 ** random.uniform(0, 4)),
        )
        for _ in range(1 + seed % 3)
    ]
    delta = float(10 ** random.uniform(-12, -1))
    found = pld_epsilon(mechanisms, delta)
    monkeypatch.setattr(pld, "summed_loss", plain)
    monkeypatch.setattr(window, "summed_loss", plain)
    monkeypatch.setattr(window, "log_moments", lambda summed, tilts: [summed.log_moment(tilt) for tilt in tilts])
    assert pld_epsilon(mechanisms, delta).hex() == found.hex()
