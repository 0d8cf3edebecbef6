"""What units have spent: composition of exactly their own runs."""

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.errors import InputError
from dpmed.privacy.cohort.records import EnteredRun, Snapshot
from dpmed.privacy.cohort.spending import cost_of, equal_histories, median, require_within, spent
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.rdp import rdp_epsilon, rdp_epsilons
from dpmed.privacy.several import composed_epsilon

DELTA = 1e-5
FIRST = SampledGaussian(noise_multiplier=2.0, sampling_rate=0.1, steps=100)
SECOND = SampledGaussian(noise_multiplier=1.0, sampling_rate=0.05, steps=40)


def snapshot(members, mechanisms, *, limit=None):
    runs = tuple(
        EnteredRun(
            number=number, token=str(number), entered="", folder="", data="", made=one.steps, status="running",
            mechanism=one, members=np.asarray(part, bool),
        )
        for number, (part, one) in enumerate(zip(members, mechanisms, strict=True))
    )  # fmt: skip
    return Snapshot(unit="patient", delta=DELTA, limit=limit, units=len(members[0]), runs=runs)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sets(st.integers(0, 30)), min_size=1, max_size=8))
def test_equal_histories_are_those_of_a_slow_loop(runs):
    members = [np.array([number in run for number in range(31)]) for run in runs]
    entered = tuple(_entered(number, one) for number, one in enumerate(members))
    snapshot = Snapshot(unit="patient", delta=1e-5, limit=None, units=31, runs=entered)
    expected = {}
    for unit in range(31):
        history = tuple(place for place, one in enumerate(members) if one[unit])
        expected[history] = expected.get(history, 0) + 1
    assert {tuple(places.tolist()): units for places, units in equal_histories(snapshot)} == expected


def _entered(number, members):
    return EnteredRun(
        number=number, token=str(number), entered="", folder="", data="", made=5, status="finished",
        mechanism=SampledGaussian(noise_multiplier=1.0, sampling_rate=0.1, steps=5), members=members,
    )  # fmt: skip


def test_each_unit_spends_its_own_runs():
    found = spent(snapshot([[1, 1, 0, 0], [0, 1, 1, 0]], [FIRST, SECOND]))
    by_epsilon = {round(history.epsilon, 9): history.units for history in found}
    expected = [composed_epsilon(one, DELTA) for one in ((FIRST, SECOND), (FIRST,), (SECOND,))]
    assert by_epsilon == {**{round(value, 9): 1 for value in expected}, 0.0: 1}
    assert found[0].epsilon == pytest.approx(expected[0])
    assert found[0].epsilon_rdp >= found[0].epsilon
    assert median(found) == pytest.approx(sorted([*expected, 0.0])[1])


def test_a_refusal_says_that_runs_count_for_all():
    runs = snapshot([[1, 1], [1, 0]], [FIRST, SECOND])
    former = replace(runs, runs=(replace(runs.runs[0], for_all=True), runs.runs[1]))
    with pytest.raises(InputError, match="an earlier version entered count for every patient"):
        require_within(0.1, former, frozenset("1"))


def test_two_equal_runs_cost_one_of_twice_the_steps():
    found = spent(snapshot([[1], [1]], [FIRST, FIRST]))
    twice = SampledGaussian(noise_multiplier=2.0, sampling_rate=0.1, steps=200)
    assert found[0].epsilon == pytest.approx(composed_epsilon((twice,), DELTA), rel=1e-6)


def test_renyi_over_a_grid_is_never_below_its_optimum_and_close_to_it():
    histories = [(FIRST,), (SECOND,), (FIRST, SECOND), ()]
    found = rdp_epsilons(histories, DELTA)
    for value, history in zip(found[:3], histories, strict=False):
        exact = rdp_epsilon(history, DELTA)
        assert exact * (1 - 1e-9) <= value <= 1.05 * exact
    assert found[3] == 0.0


def test_a_limit_refuses_with_what_would_fit():
    members = [[1, 1, 1, 0], [0, 1, 1, 1]]
    whole = composed_epsilon((FIRST, SECOND), DELTA)
    require_within(whole * 1.001, snapshot(members, [FIRST, SECOND]), frozenset("1"))
    with pytest.raises(InputError) as caught:
        require_within(whole * 0.9, snapshot(members, [FIRST, SECOND]), frozenset("1"))
    message = str(caught.value)
    assert "of 3 patients in this training 2 would exceed it" in message and "1 could still take part" in message
    # The remedy is tried: with that noise the run fits.
    noise = float(message.split("noise_multiplier = ")[1].split(maxsplit=1)[0])
    fitting = SampledGaussian(noise_multiplier=noise * 1.001, sampling_rate=0.05, steps=40)
    require_within(whole * 0.9, snapshot(members, [FIRST, fitting]), frozenset("1"))


def test_a_run_that_touches_no_spent_unit_is_let_in():
    require_within(
        composed_epsilon((SECOND,), DELTA) * 1.001, snapshot([[1, 0], [0, 1]], [FIRST, SECOND]), frozenset("1")
    )


def test_the_cost_of_a_further_run_is_that_of_its_worst_unit():
    held = snapshot([[1, 1, 0]], [FIRST])
    assert cost_of(held, np.array([False, False, True]), SECOND) == composed_epsilon((SECOND,), DELTA)
    both = composed_epsilon((FIRST, SECOND), DELTA)
    assert cost_of(held, np.array([True, False, False]), SECOND) == pytest.approx(both)


def test_many_units_in_many_runs_take_seconds():
    # Not a timing test: that it ends is the point; a unit by itself would take hours.
    generator = np.random.default_rng(0)
    kinds = [SampledGaussian(noise_multiplier=2.0 + kind, sampling_rate=0.01, steps=10) for kind in range(3)]
    groups = generator.random((60, 40)) < 0.3
    who = generator.integers(0, 40, 100_000)
    begun = time.monotonic()
    found = spent(snapshot([row[who] for row in groups], [kinds[number % 3] for number in range(60)]))
    assert sum(history.units for history in found) == 100_000
    assert time.monotonic() - begun < 600


def differing(*, units, runs, kinds):
    """Every unit in its own four fifths of the runs."""
    members = np.random.default_rng(0).random((runs, units)) < 0.8
    mechanisms = [SampledGaussian(noise_multiplier=4 + (number % kinds) / kinds, sampling_rate=0.05, steps=100)
                  for number in range(runs)]  # fmt: skip
    return snapshot(members, mechanisms)


@pytest.fixture
def pieces(monkeypatch):
    """The pieces of each composition that is asked for; what takes its place is quick, and 5 % below Rényi."""
    asked = []

    def quick(mechanisms, delta):
        asked.append(len(mechanisms))
        return 0.95 * float(rdp_epsilons([mechanisms], delta)[0])

    monkeypatch.setattr("dpmed.privacy.cohort.spending.composed_epsilon", quick)
    return asked


def test_the_cost_of_a_run_for_many_different_histories_takes_a_bounded_number_of_compositions(pieces):
    held = differing(units=500, runs=100, kinds=20)
    cost = cost_of(held, np.ones(500, bool), FIRST)
    assert 500 < sum(pieces) <= 2_000
    histories = [[*(run.mechanism for run in held.runs if run.members[unit]), FIRST] for unit in range(500)]
    most = max(rdp_epsilons(histories, DELTA))
    # Not composed tightly at the end, it may be too high by what Rényi accounting is, never too low.
    assert 0.95 * most <= cost <= most


def test_no_more_is_composed_than_may_be_the_largest(pieces):
    few = snapshot([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]], [FIRST, FIRST, SECOND])
    most = max(0.95 * rdp_epsilons([(FIRST, FIRST, SECOND, SECOND)], DELTA))
    assert cost_of(few, np.ones(4, bool), SECOND) == most
    assert len(pieces) == 1


@pytest.mark.parametrize(("most", "more"), [(4, 4.0), (20, 1.1)])
def test_kinds_counted_as_one_never_cost_less_and_little_more(monkeypatch, most, more):
    generator = np.random.default_rng(most)
    drawn = np.exp(generator.uniform([0, -4], [1, -3], (40, 2)))
    runs = [SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=1 + number)
            for number, (noise, rate) in enumerate(drawn.tolist())]  # fmt: skip
    held = snapshot([*(generator.random((39, 3)) < 0.7), [1, 1, 1]], runs)
    every = np.ones(3, bool)
    exact, further = [history.epsilon for history in spent(held)], cost_of(held, every, FIRST)
    monkeypatch.setattr("dpmed.privacy.cohort.spending._MOST_KINDS", most)
    monkeypatch.setattr("dpmed.privacy.cohort.spending._what_fits", lambda *before, **limit: "")
    found = spent(held)
    # The units have a history each, and the largest of what costs more is no smaller than the largest of the others.
    assert len(found) == len(exact) == 3 and all(len(history.mechanisms) <= most for history in found)
    for history, least in zip(found, exact, strict=True):
        assert least <= history.epsilon <= more * least
    assert further <= cost_of(held, every, FIRST) <= more * further
    with pytest.raises(InputError):
        require_within(exact[0] * 0.999, held, frozenset(["39"]))


def test_more_kinds_of_runs_than_can_be_composed_are_described_by_renyi_accounting(pieces, monkeypatch):
    monkeypatch.setattr("dpmed.privacy.cohort.spending._MOST_PIECES", 20)
    found = spent(differing(units=30, runs=40, kinds=40))
    assert pieces == []
    assert all(history.epsilon == history.epsilon_rdp > 0 for history in found)


def test_histories_that_fit_together_are_admitted_by_one_composition(pieces):
    held = differing(units=500, runs=400, kinds=4)
    limit = 1.02 * max(history.epsilon_rdp for history in spent(held))
    pieces.clear()
    # Above Rényi accounting nothing is composed; 1 % below it what covers them all is within the limit.
    require_within(limit, held, frozenset("7"))
    assert pieces == []
    histories = [[run.mechanism for run in held.runs if run.members[unit]] for unit in range(500)]
    require_within(0.99 * max(rdp_epsilons(histories, DELTA)), held, frozenset(map(str, range(400))))
    assert 0 < len(pieces) < 60


@pytest.mark.parametrize("share", [0.9, 0.95, 0.97, 1.0])
def test_the_limit_refuses_exactly_those_whose_own_composition_exceeds_it(share):
    held = differing(units=12, runs=8, kinds=3)
    tight = [composed_epsilon([run.mechanism for run in held.runs if run.members[unit]], DELTA) for unit in range(12)]
    limit, tokens = share * max(tight), frozenset(map(str, range(8)))
    beyond = sum(one > limit for one in tight)
    if not beyond:
        return require_within(limit, held, tokens)
    with pytest.raises(InputError, match=f"this training {beyond} would exceed it, with up to ε = {max(tight):.4g}"):
        require_within(limit, held, tokens)


def test_without_time_to_compose_a_limit_is_kept_by_renyi_accounting(monkeypatch):
    held = snapshot([[1, 1, 1, 0], [0, 1, 1, 1]], [FIRST, SECOND])
    limit = composed_epsilon((FIRST, SECOND), DELTA) * 1.001
    require_within(limit, held, frozenset("1"))
    monkeypatch.setattr("dpmed.privacy.cohort.spending._MOST_PIECES", 0)
    with pytest.raises(InputError, match="some of these are upper bounds"):
        require_within(limit, held, frozenset("1"))
    assert spent(held)[0].epsilon == spent(held)[0].epsilon_rdp > limit
    assert cost_of(held, np.ones(4, bool), SECOND) > limit
