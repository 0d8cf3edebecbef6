"""What units have spent: composition of exactly their own runs."""

import time

import numpy as np
import pytest

from dpmed.errors import InputError
from dpmed.privacy.cohort import EnteredRun, Snapshot
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.rdp import rdp_epsilon, rdp_epsilons
from dpmed.privacy.several import composed_epsilon
from dpmed.privacy.spending import cost_of, median, require_within, spent

DELTA = 1e-5
FIRST = SampledGaussian(noise_multiplier=2.0, sampling_rate=0.1, steps=100)
SECOND = SampledGaussian(noise_multiplier=1.0, sampling_rate=0.05, steps=40)


def snapshot(members, mechanisms, *, limit=None):
    runs = tuple(
        EnteredRun(
            number=number, token=str(number), entered="", folder="", data="", planned=one.steps, status="running",
            mechanism=one, members=np.asarray(part, bool),
        )
        for number, (part, one) in enumerate(zip(members, mechanisms, strict=True))
    )  # fmt: skip
    return Snapshot(unit="patient", delta=DELTA, limit=limit, units=len(members[0]), runs=runs)


def test_each_unit_spends_its_own_runs():
    found = spent(snapshot([[1, 1, 0, 0], [0, 1, 1, 0]], [FIRST, SECOND]))
    by_epsilon = {round(history.epsilon, 9): history.units for history in found}
    expected = [composed_epsilon(one, DELTA) for one in ((FIRST, SECOND), (FIRST,), (SECOND,))]
    assert by_epsilon == {**{round(value, 9): 1 for value in expected}, 0.0: 1}
    assert found[0].epsilon == pytest.approx(expected[0])
    assert found[0].epsilon_rdp >= found[0].epsilon
    assert median(found) == pytest.approx(sorted([*expected, 0.0])[1])


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
    assert cost_of(held, SECOND, np.array([False, False, True]), new=0) == composed_epsilon((SECOND,), DELTA)
    both = composed_epsilon((FIRST, SECOND), DELTA)
    assert cost_of(held, SECOND, np.array([True, False, False]), new=5) == pytest.approx(both)


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
