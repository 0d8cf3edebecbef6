"""ε(σ), σ(ε) and steps(ε): monotone, inverse to each other, from tiny to absurd budgets, in little memory."""

import itertools
import math
import re
import subprocess
import sys

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.errors import InputError
from dpmed.privacy.accountant import SampledGaussian, calibrate_noise, calibrate_steps, epsilon
from dpmed.privacy.several import composed_epsilon

# The grid may raise a tight ε by 0.03 %: two values closer than that may come in either order.
SLACK = 1 + 4e-4

NOISES = st.floats(0.06, 20.0)
RATES = st.floats(1e-4, 1.0)
STEPS = st.integers(1, 5000)
DELTAS = st.floats(-9.0, -3.0).map(lambda exponent: 10.0**exponent)
FACTORS = st.floats(1.0, 4.0)


def spent(noise, rate, steps, delta, accountant="pld"):
    mechanism = SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps)
    return epsilon(mechanism, delta, accountant=accountant)


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(noise=NOISES, rate=RATES, steps=STEPS, delta=DELTAS, factor=FACTORS)
def test_less_noise_more_steps_more_sampling_and_smaller_delta_never_spend_less(
    accountant, noise, rate, steps, delta, factor
):
    value = spent(noise, rate, steps, delta, accountant)
    assert 0 <= value < math.inf
    assert spent(noise / factor, rate, steps, delta, accountant) * SLACK >= value
    assert spent(noise, rate, math.ceil(steps * factor), delta, accountant) * SLACK >= value
    assert spent(noise, min(1.0, rate * factor), steps, delta, accountant) * SLACK >= value
    assert spent(noise, rate, steps, delta / factor, accountant) * SLACK >= value


@pytest.mark.parametrize("target", [0.01, 0.1, 1.0, 8.0, 100.0, 1e4, 1e9, 1e18])
@pytest.mark.parametrize(
    ("rate", "steps", "delta", "accountant"),
    [
        (2048 / 8012, 300, 8e-7, "pld"),
        (1 / 106, 53000, 8e-7, "pld"),
        (3328 / 970000, 14550, 8e-7, "pld"),
        (1.0, 10, 1e-5, "pld"),
        (2048 / 8012, 300, 8e-7, "rdp"),
    ],
)
def test_calibrated_noise_spends_the_target_and_never_more(rate, steps, delta, accountant, target):
    noise = calibrate_noise(epsilon=target, delta=delta, sampling_rate=rate, steps=steps, accountant=accountant)
    assert target * 0.999 <= spent(noise, rate, steps, delta, accountant) <= target


@pytest.mark.parametrize(
    ("target", "rate", "noise", "accountant"),
    [(1.0, 0.01, 1.0, "pld"), (8.0, 0.25, 3.0, "pld"), (1e6, 0.25, 0.01, "pld"), (8.0, 0.25, 3.0, "rdp")],
)
def test_calibrated_steps_are_the_most_that_fit(target, rate, noise, accountant):
    steps = calibrate_steps(
        epsilon=target, delta=1e-6, sampling_rate=rate, noise_multiplier=noise, accountant=accountant
    )
    assert spent(noise, rate, steps, 1e-6, accountant) <= target < spent(noise, rate, steps + 1, 1e-6, accountant)


def test_no_step_at_all_is_refused_with_what_one_would_cost():
    with pytest.raises(InputError, match=r"one step at σ = 0\.1 already spends"):
        calibrate_steps(epsilon=1.0, delta=1e-6, sampling_rate=0.5, noise_multiplier=0.1)


EARLIER = (
    SampledGaussian(noise_multiplier=2.0, sampling_rate=0.05, steps=400),
    SampledGaussian(noise_multiplier=30.0, sampling_rate=1.0, steps=20),
)


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_what_is_left_after_earlier_runs_is_used_up_and_not_more(accountant):
    before = composed_epsilon(EARLIER, 1e-6, accountant=accountant)
    target = before + 1.0
    noise = calibrate_noise(
        epsilon=target, delta=1e-6, sampling_rate=0.1, steps=100, accountant=accountant, others=EARLIER
    )
    own = SampledGaussian(noise_multiplier=noise, sampling_rate=0.1, steps=100)
    assert target * 0.9999 <= composed_epsilon((own, *EARLIER), 1e-6, accountant=accountant) <= target
    steps = calibrate_steps(
        epsilon=target, delta=1e-6, sampling_rate=0.1, noise_multiplier=noise, accountant=accountant, others=EARLIER
    )
    assert 100 <= steps <= 101


def test_what_has_been_spent_is_stated_rounded_up():
    before = composed_epsilon(EARLIER, 2e-6)
    target = math.nextafter(before, 0)
    with pytest.raises(InputError) as found:
        calibrate_noise(epsilon=target, delta=2e-6, sampling_rate=0.1, steps=100, others=EARLIER)
    stated = re.search(r"already spent ε = ([\d.]+),", str(found.value))
    assert stated is not None
    assert float(stated[1]) >= before
    cost = spent(0.1, 0.5, 1, 2e-6, "pld")
    with pytest.raises(InputError) as found:
        calibrate_steps(epsilon=1.0, delta=2e-6, sampling_rate=0.5, noise_multiplier=0.1)
    stated = re.search(r"already spends ε = ([\d.]+),", str(found.value))
    assert stated is not None
    assert float(stated[1]) >= cost


def test_where_nothing_is_left_nothing_is_calibrated():
    spent_before = composed_epsilon(EARLIER, 1e-6)
    with pytest.raises(InputError, match="earlier runs have already spent"):
        calibrate_noise(epsilon=spent_before * 0.99, delta=1e-6, sampling_rate=0.1, steps=100, others=EARLIER)
    with pytest.raises(InputError, match="earlier runs have already spent"):
        calibrate_steps(epsilon=0.5, delta=1e-6, sampling_rate=0.1, noise_multiplier=9.0, others=EARLIER)
    with pytest.raises(InputError, match="together with earlier runs"):
        calibrate_steps(
            epsilon=spent_before * 1.001, delta=1e-6, sampling_rate=0.5, noise_multiplier=0.5, others=EARLIER
        )


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_no_steps_spend_nothing(accountant):
    assert spent(0.1, 0.5, 0, 1e-6, accountant) == 0


def test_who_hardly_ever_takes_part_spends_nothing_at_any_noise():
    # Chance of ever taking part: 10 · 1e-7 = 1e-6, just under δ; twice as many steps are over it.
    for noise in (1e-6, 1.0, 100.0):
        assert spent(noise, 1e-7, 10, 1.1e-6) == 0
    assert spent(1e-6, 1e-7, 20, 1.1e-6) > 0
    with pytest.raises(InputError, match="every σ"):
        calibrate_noise(epsilon=1.0, delta=1.1e-6, sampling_rate=1e-7, steps=10)


def one_step_epsilon(rate, noise, delta):
    """ε of a single step in closed form, with 40 digits, since ε goes up to 10^6 here."""
    with mpmath.workdps(40):
        rate, shift = mpmath.mpf(rate), 1 / mpmath.mpf(noise)

        def log_delta(epsilon):
            x = (mpmath.log((mpmath.exp(epsilon) - 1 + rate) / rate) + shift**2 / 2) / shift
            with_, without = (mpmath.erfc(y / mpmath.sqrt(2)) / 2 for y in (x - shift, x))
            return mpmath.log(rate * with_ + (1 - rate - mpmath.exp(epsilon)) * without)

        low, high = mpmath.mpf("1e-9"), 10 * shift**2 + 100
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if log_delta(middle) > mpmath.log(delta) else (low, middle)
        return float(high)


@pytest.mark.parametrize("rate", [0.5, 1 / 106, 1e-3])
@pytest.mark.parametrize(
    "noise",
    [1e-3, 3e-3, 0.02, 0.0799, 0.0801, 0.3, 1.0],
)
def test_one_step_has_the_closed_form_in_every_regime(rate, noise):
    truth = one_step_epsilon(rate, noise, 1e-6)
    assert truth * (1 - 1e-8) <= spent(noise, rate, 1, 1e-6) <= truth * 1.0004


@pytest.mark.parametrize(("rate", "steps"), [(2048 / 8012, 300), (1 / 106, 53000), (3328 / 970000, 14550), (0.5, 1)])
def test_regimes_meet_without_a_jump(rate, steps):
    # ε is smooth in σ: the ratio across the handover is that a little further out on either side.
    values = [spent(noise, rate, steps, 8e-7) for noise in (0.0797, 0.0799, 0.0801, 0.0803)]
    below, across, above = (left / right for left, right in itertools.pairwise(values))
    assert across == pytest.approx(math.sqrt(below * above), rel=1e-3)


def test_a_target_at_the_handover_is_reached_too():
    rate, steps, delta = 3328 / 970000, 14550, 8e-7
    target = spent(0.0801, rate, steps, delta) * 1.05
    noise = calibrate_noise(epsilon=target, delta=delta, sampling_rate=rate, steps=steps)
    assert target * 0.999 <= spent(noise, rate, steps, delta) <= target


@pytest.mark.parametrize("arguments", [
    {"noise_multiplier": 0.0}, {"noise_multiplier": math.inf}, {"noise_multiplier": math.nan},
    {"sampling_rate": 0.0}, {"sampling_rate": 1.1}, {"steps": -1},
])  # fmt: skip
def test_impossible_steps_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        SampledGaussian(**({"noise_multiplier": 1.0, "sampling_rate": 0.1, "steps": 10} | arguments))


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-6, math.nan])
def test_impossible_deltas_are_refused(delta):
    with pytest.raises(ValueError, match="delta"):
        spent(1.0, 0.1, 10, delta)


_HARDEST = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (3 << 29, 3 << 29))
from dpmed.privacy.accountant import SampledGaussian, epsilon
for noise in (0.3, 0.8, 2.0):
    print(epsilon(SampledGaussian(noise_multiplier=noise, sampling_rate=1e-4, steps=10**7), 1e-8))
"""


def test_ten_million_steps_fit_into_one_and_a_half_gibibytes():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _HARDEST],
        capture_output=True,
        text=True,
        # Each thread of the linear algebra library reserves address space of its own, however little it uses.
        env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    values = [float(line) for line in done.stdout.split()]
    assert all(math.isfinite(value) for value in values)
    assert values == sorted(values, reverse=True)
