import math

import numpy as np
import pytest

from dpmed.auditing.measured_noise import MeasuredNoise, epsilon_by_noise, measure_noise
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.several import composed_epsilon


def seen(generator, *, noise, rate, steps, included, step=1.0):
    taking_part = generator.random((steps, len(included))) < rate
    return step * (taking_part & included) + noise * generator.standard_normal((steps, len(included)))


INCLUDED = np.arange(200) % 2 == 0


def test_limits_fail_as_rarely_as_they_say():
    generator = np.random.default_rng(0)
    failed = 0
    for _ in range(300):
        gradients = seen(generator, noise=3.0, rate=0.4, steps=30, included=INCLUDED)
        found = measure_noise(gradients, INCLUDED, sampling_rate=0.4, level=0.1)
        failed += found.noise_multiplier_upper < 3.0
        assert found.deviation == pytest.approx(3.0, rel=0.1) and found.deviation_upper > found.deviation
    # 10 % of 300 are 30; over 50 happens by chance less than once in 10^4 times.
    assert failed <= 50


@pytest.mark.parametrize(("noise", "step"), [(0.3, 1.0), (3.0, 2.0), (3 / np.sqrt(2), 1.0)])
def test_less_noise_and_larger_steps_are_seen(noise, step):
    gradients = seen(
        np.random.default_rng(1), noise=noise, rate=0.4, steps=150, included=np.arange(1000) % 2 == 0, step=step
    )
    found = measure_noise(gradients, np.arange(1000) % 2 == 0, sampling_rate=0.4, level=0.01)
    assert found.noise_multiplier_upper < 0.9 * 3.0
    assert found.noise_multiplier_upper > noise / step


def test_the_same_noise_in_every_step_is_none():
    generator = np.random.default_rng(2)
    gradients = np.repeat(seen(generator, noise=3.0, rate=0.4, steps=1, included=INCLUDED & False), 20, axis=0)
    # A step is far below the noise, which every mean contains; its comings and goings show it all the same.
    taking_part = generator.random(gradients.shape) < 0.4
    gradients = 100 * gradients + (INCLUDED & taking_part)
    found = measure_noise(gradients, INCLUDED, sampling_rate=0.4, level=0.05)
    assert 0.9 < found.step_lower < 1
    assert found.noise_multiplier_upper == pytest.approx(0.0, abs=1e-6)


def test_where_no_step_is_seen_nothing_is_said():
    gradients = seen(np.random.default_rng(3), noise=3.0, rate=0.4, steps=5, included=INCLUDED & False)
    found = measure_noise(gradients - 1.0, INCLUDED, sampling_rate=0.4, level=0.05)
    assert found.noise_multiplier_upper == np.inf
    assert measure_noise(gradients[:1], INCLUDED, sampling_rate=0.4, level=0.05) is None
    assert measure_noise(gradients, np.zeros(200, bool), sampling_rate=0.4, level=0.05) is None


def test_the_limit_of_epsilon_is_that_of_the_measured_noise():
    claimed = SampledGaussian(noise_multiplier=3.0, sampling_rate=0.4, steps=20)

    def limit(noise):
        measured = MeasuredNoise(deviation=noise, deviation_upper=noise, step=1.0, step_lower=1.0)
        return epsilon_by_noise(claimed, measured, 1e-5)

    assert limit(3.0) == composed_epsilon((claimed,), 1e-5)
    assert limit(0.3) > 10 * limit(3.0) > 0
    assert limit(0.0) == limit(1e-4) > limit(0.3)
    # No step was found.
    assert limit(math.inf) == limit(1e4) == 0.0
