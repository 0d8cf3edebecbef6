"""The server in front of a real plan: its noise, its scale, and what it learns from."""

import numpy as np
import pytest

from dpmed.attacks.malicious_server.server import MaliciousServer
from dpmed.privacy.accountant import calibrate_noise
from dpmed.progress import Silent
from tests.attacks.asking import aim, asked


@pytest.fixture(scope="module")
def target():
    return aim(asked(epsilons=(1e8, None)))


@pytest.fixture(scope="module")
def answers(target):
    server = MaliciousServer(target.plan, rows=48, batch_size=24)
    return server.answer(target.plan.split.train[:24], Silent())


def test_noise_of_a_level_is_sigma_times_the_clipping_norm_on_the_update(target, answers):
    plan, (level, non_private) = target.plan, target.levels
    sigma = calibrate_noise(epsilon=1e8, delta=1e-5, sampling_rate=plan.budget.sampling_rate, steps=plan.steps)
    assert level.noise_multiplier == sigma
    sent = answers.send("imprint", level, np.random.default_rng(0))
    noiseless = answers.update("imprint", clipping_norm=0.5).send(noise_std=0.0, generator=np.random.default_rng(0))
    noise = sent.rows - noiseless
    std = sigma * plan.budget.clipping_norm
    assert sent.noise_std == std
    assert noise.std() == pytest.approx(std, rel=0.05) and abs(noise.mean()) < 5 * std / np.sqrt(noise.size)
    plain = answers.send("imprint", non_private, np.random.default_rng(0))
    assert plain.noise_std == 0 and np.abs(plain.rows).max() > np.abs(noiseless).max()


def test_the_block_dominates_every_clipped_gradient(answers):
    update = answers.update("imprint", clipping_norm=0.5)
    norms = np.abs(update.weights) * np.sqrt(
        np.square(update.images, dtype=np.float64).sum(axis=1)
        + np.square(update.activations.marks, dtype=np.float64).sum(axis=1)
    )
    assert np.median(norms) == pytest.approx(0.5, rel=1e-3) and norms.max() <= 0.5


def test_the_server_learns_from_no_image_that_it_attacks(monkeypatch, target):
    plan, read = target.plan, []
    original = type(plan.dataset).__getitem__
    monkeypatch.setattr(type(plan.dataset), "__getitem__", lambda self, i: (read.append(i), original(self, i))[1])
    server = MaliciousServer(plan, rows=48, batch_size=24)
    for attack in ("trap-weights", "imprint", "peeling"):
        server.block(attack)
    assert read and not set(read) & set(plan.split.train.tolist())
