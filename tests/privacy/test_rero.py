"""Reconstruction robustness: the reference table, the inverse, and what a ledger must say."""

import math

import pytest

from dpmed.errors import InputError
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.rero import REPORTED_FPR, assess, assess_epsilon, noise_for_risk, reconstruction
from dpmed.privacy.several import composed_epsilon
from dpmed.privacy.tradeoff import Composition
from tests.privacy.reference import IDS, ROWS


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_every_reference_value_is_reproduced(row):
    _, size, batch, steps, noise, _, _, worst, relaxed = row
    for adversary, value in (("worst-case", worst), ("relaxed", relaxed)):
        mechanism = SampledGaussian(noise_multiplier=noise, sampling_rate=batch / size, steps=steps)
        composition = Composition.of([mechanism], adversary)
        power = reconstruction(composition, 1 / size)
        assert value * 0.9998 <= power.upper <= value * 1.005
        assert power.upper * 0.995 <= power.lower <= power.upper


@pytest.mark.parametrize("adversary", ["worst-case", "relaxed"])
@pytest.mark.parametrize("risk", [1e-3, 0.05, 0.9])
def test_the_inverse_keeps_to_the_risk_and_wastes_no_noise(adversary, risk):
    setting = {"sampling_rate": 2048 / 8012, "steps": 300}
    noise = noise_for_risk(risk, adversary=adversary, prior=1 / 8012, **setting)
    mechanism = SampledGaussian(noise_multiplier=noise, **setting)
    bound = reconstruction(Composition.of([mechanism], adversary), 1 / 8012).upper
    assert risk * (1 - 1e-4) <= bound <= risk


def test_the_relaxed_adversary_needs_less_noise():
    setting = {"prior": 1e-3, "sampling_rate": 0.1, "steps": 100}
    assert noise_for_risk(0.05, adversary="relaxed", **setting) < noise_for_risk(
        0.05, adversary="worst-case", **setting
    )


@pytest.mark.parametrize("risk", [1e-4, 1e-3, 1.0, 2.0, -1.0])
def test_a_risk_that_guessing_reaches_is_refused(risk):
    with pytest.raises(InputError, match="prior"):
        noise_for_risk(risk, adversary="worst-case", prior=1e-3, sampling_rate=0.1, steps=10)


def test_a_risk_that_is_never_reached_is_refused():
    with pytest.raises(InputError, match="taking part"):
        noise_for_risk(0.5, adversary="worst-case", prior=1e-3, sampling_rate=1e-4, steps=10)


def test_an_assessment_holds_all_risks():
    composition = Composition.of([SampledGaussian(noise_multiplier=3.0, sampling_rate=0.2, steps=50)], "worst-case")
    risk = assess(composition, prior=0.01)
    assert risk.upper == composition.power(0.01).upper
    assert risk.tpr == composition.upper_power(1e-3)
    assert 0 <= risk.advantage <= 1
    assert risk.advantage >= risk.lower - 0.01


def test_different_runs_on_one_patient_are_assessed_together():
    kinds = [
        SampledGaussian(noise_multiplier=n, sampling_rate=q, steps=t) for n, q, t in ((3.0, 0.2, 50), (9.0, 0.5, 90))
    ]
    for adversary in ("worst-case", "relaxed"):
        together = assess(Composition.of(kinds, adversary), prior=0.01)
        for kind in kinds:
            alone = assess(Composition.of([kind], adversary), prior=0.01)
            assert together.lower >= alone.lower * (1 - 1e-3)
            assert together.upper >= alone.upper * (1 - 1e-3)
            assert together.tpr >= alone.tpr * (1 - 1e-3)
            assert together.advantage >= alone.advantage * (1 - 1e-3)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.0), (0.5, 1e-5), (3.0, 0.01), (40.0, 1e-5), (800.0, 1e-8)])
def test_risks_of_an_epsilon_alone_are_those_of_the_worst_mechanism_that_has_it(epsilon, delta):
    # Kairouz, Oh & Viswanath (2015): outcomes 0 and 3 tell for certain, 1 and 2 by a factor of e^ε. With the record
    # outcome 3 has probability δ, without it 0; a test rejects the likeliest first, and at random where it must.
    share = (1 - delta) / (1 + math.exp(-epsilon))
    present = [delta, share, share * math.exp(-epsilon)]
    absent = [0.0, share * math.exp(-epsilon), share]

    def power(fpr):
        found, left = 0.0, fpr
        for tpr, cost in zip(present, absent, strict=True):
            taken = 1.0 if cost <= left else left / cost
            found, left = found + taken * tpr, left - taken * cost
        return found

    for prior in (1e-4, 0.1, 0.6):
        risk = assess_epsilon(epsilon, delta, prior=prior)
        assert risk.upper == pytest.approx(power(prior), rel=1e-9)
        assert risk.tpr == pytest.approx(power(REPORTED_FPR), rel=1e-9)
        rates = [math.exp(-place / 50) for place in range(40_000)]
        assert risk.advantage == pytest.approx(max(power(rate) - rate for rate in [*rates, 0.0]), abs=0.02)
        assert risk.advantage >= max(power(rate) - rate for rate in rates) - 1e-12


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_an_epsilon_alone_bounds_less_than_the_mechanism_that_has_it(noise):
    composition = Composition.of([SampledGaussian(noise_multiplier=noise, sampling_rate=0.1, steps=20)], "worst-case")
    alone = assess_epsilon(epsilon_of(noise), 1e-5, prior=0.01)
    whole = assess(composition, prior=0.01)
    assert alone.upper >= whole.upper and alone.tpr >= whole.tpr and alone.advantage >= whole.advantage


def epsilon_of(noise):
    mechanism = SampledGaussian(noise_multiplier=noise, sampling_rate=0.1, steps=20)
    return composed_epsilon((mechanism,), 1e-5)
