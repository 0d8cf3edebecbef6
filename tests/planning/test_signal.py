"""Noise against signal: the ratio by Monte Carlo; a warning for trainings that cannot learn, and for no others."""

import re
from dataclasses import replace

import numpy as np
import pytest

from dpmed.dpsgd.clipping import AdaptiveClipping, FlatClipping
from dpmed.planning.signal import noise_to_signal
from dpmed.privacy.budget import Budget

# N, expected batch, T, σ at ε = 8 and d of shipped trainings (`dpmed train NAME --dry-run`).
LEARN = {
    "quickstart": (1438, 512, 150, 2.75, 4810),
    "cifar10_dp_phantom": (3600, 512, 105, 1.23, 79972),
    "ham10000_dp_phantom": (1600, 256, 90, 1.27, 38825),
    "radimagenet_dp_phantom": (1500, 256, 75, 1.25, 59837),
    "table_phantom": (1066, 128, 160, 1.09, 33534),
    "nnunet_phantom": (240, 32, 280, 1.27, 18899),
    "msd_liver_dp_phantom": (64, 1, 1280, 0.691, 85195),
    "ham10000_dp": (8012, 2048, 300, 3.22, 2439489),
    "cifar10_dp": (45000, 4096, 2000, 2.72, 4897428),
}


def budget(size, batch, steps, sigma, *, norm=1.0):
    return Budget(
        noise_multiplier=sigma,
        sampling_rate=batch / size,
        steps=steps,
        delta=1e-5,
        clipping_norm=norm,
        train_size=size,
        expected_batch_size=batch,
        accountant="pld",
        epsilon_pld=8.0,
        epsilon_rdp=8.5,
    )


def test_the_ratio_is_that_of_lengths_whatever_the_clipping_norm():
    steps, batch, sigma, size, norm = 20, 16, 1.5, 4000, 0.3
    noise = np.random.default_rng(0).normal(scale=sigma * norm / batch, size=(steps, size))
    found = noise_to_signal(budget(100, batch, steps, sigma, norm=norm), FlatClipping(norm), parameters=size)
    assert found.step == pytest.approx(np.linalg.norm(noise, axis=1).mean() / norm, rel=0.02)
    assert found.training == pytest.approx(np.linalg.norm(noise.mean(0)) / norm, rel=0.05)


@pytest.mark.parametrize("name", list(LEARN))
def test_shipped_trainings_that_learn_raise_no_alarm(name):
    *facts, parameters = LEARN[name]
    solved = budget(*facts)
    assert (
        noise_to_signal(solved, FlatClipping(1.0), parameters=parameters).warnings(solved, parameters=parameters) == ()
    )


def test_a_large_network_on_few_patients_is_warned_of_with_what_would_have_to_change():
    solved, parameters = budget(120, 8, 150, 12.0), 2_400_000
    found = noise_to_signal(solved, FlatClipping(1.0), parameters=parameters)
    (warning,) = found.warnings(solved, parameters=parameters)
    for words in (
        "can hardly learn",
        "120 training records",
        "ε = 8",
        "150 steps",
        "times as many patients",
        "larger ε",
    ):
        assert words in warning
    fewer = int(re.search(r"at most ([\d,]+) trained", warning)[1].replace(",", ""))
    assert noise_to_signal(solved, FlatClipping(1.0), parameters=fewer).warnings(solved, parameters=fewer) == ()
    assert noise_to_signal(solved, FlatClipping(1.0), parameters=2 * fewer).warnings(solved, parameters=2 * fewer)


def test_the_warning_states_epsilon_rounded_up():
    solved, parameters = replace(budget(120, 8, 150, 12.0), epsilon_pld=8.0004), 2_400_000
    (warning,) = noise_to_signal(solved, FlatClipping(1.0), parameters=parameters).warnings(
        solved, parameters=parameters
    )
    assert "ε = 8.001," in warning


def test_counts_that_are_paid_for_leave_gradients_more_noise():
    solved = budget(1000, 100, 50, 1.0)
    clipping = AdaptiveClipping(clipping_norm=1.0, quantile=0.5, rate=0.2, count_noise=1.0, expected_batch_size=100)
    flat, moving = (noise_to_signal(solved, one, parameters=100) for one in (FlatClipping(1.0), clipping))
    assert moving.step == pytest.approx(flat.step / np.sqrt(0.75))
