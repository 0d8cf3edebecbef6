"""The ledger: what it promises, what it is bound to, and what it must not hold."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmed.privacy.accountant import SampledGaussian, epsilon
from dpmed.privacy.budget import BudgetRequest, solve_budget
from dpmed.privacy.constant_sign import constant_sign_upper
from dpmed.privacy.ledger import (
    Digests,
    LedgerFacts,
    assumption_notes,
    describe_release,
    group_privacy,
    plain_ledger,
    private_ledger,
    several_images_note,
)
from dpmed.privacy.rero import reconstruction
from dpmed.privacy.tradeoff import Composition
from dpmed.rounding import rounded_up

BUDGET = solve_budget(
    BudgetRequest(train_size=500, expected_batch_size=50, delta=1e-4, clipping_norm=2.0, epsilon=3.0, epochs=4)
)


def facts(**changes):
    values = {"unit": "patient", "source": "os-entropy", "data": "folder: classification, 8x8x1", "version": "1.2.3"}
    return LedgerFacts(**{**values, **changes})


def test_epsilon_is_that_of_the_steps_made_and_never_rounded():
    for steps in (0, 7, 40):
        ledger = private_ledger(BUDGET, facts(), steps=steps, status="stopped")
        mechanism = SampledGaussian(noise_multiplier=BUDGET.noise_multiplier, sampling_rate=0.1, steps=steps)
        assert ledger.epsilon == ledger.epsilon_pld == epsilon(mechanism, 1e-4)
        assert ledger.epsilon_rdp == epsilon(mechanism, 1e-4, accountant="rdp")
        assert abs(ledger.epsilon_dp_accounting - ledger.epsilon) <= 2e-3 * ledger.epsilon


def test_it_is_bound_to_model_config_and_version():
    ledger = private_ledger(
        BUDGET, facts(), steps=1, status="finished", digests=Digests(config="c", model="m")
    ).to_json()
    assert (ledger["model_sha256"], ledger["config_sha256"], ledger["version"]) == ("m", "c", "1.2.3")
    assert ledger["data"] == "folder: classification, 8x8x1"
    assert ledger["created"].endswith("+00:00")


def test_a_run_under_way_does_not_wait_for_a_second_opinion():
    assert private_ledger(BUDGET, facts(), steps=1, status="running").epsilon_dp_accounting is None


def test_what_may_leave_the_institution_is_said_for_each_kind_of_run():
    private = private_ledger(BUDGET, facts(), steps=1, status="finished")
    seeded = private_ledger(BUDGET, facts(source="seeded"), steps=1, status="finished")
    plain = plain_ledger(facts(), train_size=500, batch_size=50, steps=1, steps_planned=1, status="finished")
    assert describe_release(private)[0].startswith("model.eqx and privacy.json may be released")
    for ledger in (seeded, plain):
        assert "keep the whole run folder within your institution" in describe_release(ledger)[0]
    assert plain.epsilon is None and "not private" in plain.outside_accounting[0]
    assert "void" in seeded.notes[0]


def test_the_note_on_several_images_follows_from_epsilon_alone_and_promises_no_more():
    note = several_images_note("patient", epsilon=1.23456, delta=1e-6)
    for size in (2, 3, 5):
        epsilon, delta = group_privacy(1.23456, 1e-6, size=size)
        said = note.partition(f"{size} images: (")[2].partition(")")[0]
        stated = [float(number) for number in said.split(",")]
        assert epsilon <= stated[0] < epsilon * 1.001 and delta <= stated[1] < delta * 1.1
    assert "no (ε, δ) with δ < 1" in several_images_note("patient", epsilon=100.0, delta=1e-6)


# No subnormal δ: of such numbers a float keeps a few bits only.
@given(st.floats(0, 30), st.floats(0, 1, allow_subnormal=False), st.integers(1, 12))
def test_group_privacy_is_the_recursion_of_one_record_after_the_other(epsilon, delta, size):
    # One more neighbour at a time: P(A) <= e^ε P'(A) + δ, applied `size` times.
    expected = 0.0
    for _ in range(size):
        expected = delta + math.exp(epsilon) * expected
    group_epsilon, group_delta = group_privacy(epsilon, delta, size=size)
    assert group_epsilon == pytest.approx(size * epsilon)
    assert group_delta == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_randomised_response_shows_that_the_bound_is_not_too_small():
    # k independent coins, each true with probability p: for k records the exact δ at kε' is computable.
    p, size, epsilon = 0.8, 3, 1.0
    ratio = p / (1 - p)
    delta = max(0.0, p - math.exp(epsilon) * (1 - p))
    group_epsilon, group_delta = group_privacy(epsilon, delta, size=size)
    exact = sum(
        math.comb(size, k)
        * max(0.0, p**k * (1 - p) ** (size - k) * (1 - math.exp(group_epsilon) / ratio ** (2 * k - size)))
        for k in range(size + 1)
    )
    assert 0 < exact <= group_delta


def test_a_size_below_one_is_a_programmers_error():
    with pytest.raises(ValueError, match="size=0"):
        group_privacy(1.0, 0.0, size=0)


def test_a_ledger_says_that_the_relaxed_adversary_is_an_assumption():
    relaxed = Composition.of([SampledGaussian(noise_multiplier=1.5, sampling_rate=0.4, steps=150)], "relaxed")
    text = " ".join(assumption_notes(relaxed, prior=0.001, max_risk=0.05))
    worst = Composition.of([SampledGaussian(noise_multiplier=1.5, sampling_rate=0.4, steps=150)], "worst-case")
    for word in (
        "assumption",
        "not a differential-privacy guarantee",
        "0.001",
        rounded_up(reconstruction(worst, 0.001).upper),
        rounded_up(constant_sign_upper(relaxed, 0.001)),
        "stays the same",
    ):
        assert word in text
    assert "assumption" not in " ".join(assumption_notes(worst, prior=0.001, max_risk=0.05))
