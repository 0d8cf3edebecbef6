"""Several mechanisms: what may be counted together, and the chance of taking part."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmed.privacy.mechanism import SampledGaussian, counted, is_countable, merged, participation


def made(noise, rate, steps):
    return SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps)


KINDS = st.builds(made, st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 20))


@given(st.lists(KINDS, max_size=8), st.randoms(use_true_random=False))
def test_the_order_does_not_matter_and_no_step_is_lost(mechanisms, random):
    shuffled = list(mechanisms)
    random.shuffle(shuffled)
    for take in (counted, merged):
        assert take(shuffled) == take(mechanisms)
        assert take(take(mechanisms)) == take(mechanisms)
    assert sum(one.steps for one in counted(mechanisms)) == sum(one.steps for one in mechanisms)
    assert len({(one.noise_multiplier, one.sampling_rate) for one in counted(mechanisms)}) == len(counted(mechanisms))


def test_full_batches_of_different_noise_are_one_gaussian():
    one, other, sampled = made(3.0, 1.0, 9), made(4.0, 1.0, 16), made(1.0, 0.1, 5)
    (first, gaussian) = merged((one, sampled, other))
    assert first == sampled
    assert gaussian.steps == 1
    assert gaussian.noise_multiplier == pytest.approx(1 / math.sqrt(9 / 9 + 16 / 16))
    assert merged((one, one)) == (made(3.0, 1.0, 18),)


def test_tiny_and_huge_noise_together_neither_overflow_nor_vanish():
    (gaussian,) = merged((made(1e-200, 1.0, 4), made(1e200, 1.0, 4)))
    assert gaussian.noise_multiplier == pytest.approx(0.5e-200)


def test_participation_is_that_of_independent_draws():
    assert participation((made(1.0, 0.1, 2), made(5.0, 0.5, 1))) == pytest.approx(1 - 0.9**2 * 0.5)
    assert participation((made(1.0, 0.1, 2), made(5.0, 1.0, 1))) == 1.0
    assert participation((made(5.0, 1.0, 0),)) == 0.0
    assert participation(()) == 0.0


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "countable"),
    [(1.0, 0.1, 10_000_000, True), (1e-12, 1.0, 1, True), (1e300, 0.1, 1, False), (5e-324, 0.1, 1, False),
     (1.0, 5e-324, 1, False), (1.0, 0.1, 1 << 62, False)],
)  # fmt: skip
def test_only_numbers_that_an_accountant_can_take_are_countable(noise, rate, steps, countable):
    assert is_countable(SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps)) == countable
