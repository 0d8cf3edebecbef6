"""Canaries in the quickstart's mechanism: an attacker who sees every step cannot beat the claimed ε.

A coin decides for each of 500 canaries whether it takes part; each pulls with the full clipping norm in a direction of
its own. The attacker sees the final sum of all noisy steps and guesses the coins. Under (ε, δ) the number of right
guesses is at most Binomial(500, e^ε / (1 + e^ε)), up to 500·δ (Steinke, Nasr & Jagielski, 2023, Theorem 5.2). Right
guesses thus give a lower confidence limit of ε. At 99.9 % it must not lie above the claimed ε. With a tenth of the
noise, or with noise that is drawn once and used again, the same test must catch the training red-handed.
"""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from dpmed.config.load import load_config
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.dpsgd.noise import seeded_key
from dpmed.dpsgd.sampling import PoissonSampler
from dpmed.dpsgd.step import PrivateStep, StepState
from dpmed.planning.plan import make_plan
from dpmed.progress import Silent

CANARIES = 500


@pytest.fixture(scope="module")
def budget():
    """The quickstart's budget at ε = 1, where 500 guesses can show a leak."""
    budget = make_plan(load_config("quickstart", ["privacy.epsilon=1"]).config, Silent()).budget
    assert budget is not None
    return budget


def epsilon_lower_limit(budget, *, noise_share=1.0, reuse_noise=False):
    """The 99.9 % lower confidence limit of ε after the quickstart's steps on canaries."""
    optimizer = optax.with_extra_args_support(optax.sgd(1.0))
    step = PrivateStep(
        lambda trainable, rest, record: 1e3 * jnp.dot(trainable, record["direction"]),
        clipping=FlatClipping(budget.clipping_norm),
        noise_multiplier=noise_share * budget.noise_multiplier,
        expected_batch_size=budget.expected_batch_size,
        most_records=CANARIES,
        optimizer=optimizer,
        key=seeded_key(1),
    )
    takes_part = np.random.default_rng(2).random(CANARIES) < 0.5
    members = np.flatnonzero(takes_part)
    sampler = PoissonSampler(len(members), budget.sampling_rate, "seeded", seed=3)
    start = jnp.zeros(CANARIES, jnp.float32)
    state = StepState(trainable=start, rest=jnp.zeros(()), optimizer=optimizer.init(start))
    for number in range(budget.steps):
        chosen = members[sampler.draw(number)]
        directions = np.zeros((CANARIES, CANARIES), np.float32)
        directions[np.arange(len(chosen)), chosen] = 1
        mask = jnp.arange(CANARIES) < len(chosen)
        state, total = step.accumulate(state, step.begin(state), {"direction": directions}, mask)
        state = step.update(state, total, draw=0 if reuse_noise else number)
    pulled = -np.asarray(state.trainable)
    if reuse_noise:
        # Anyone who sees two steps can cancel the noise of one with the other.
        noise = -np.asarray(step.update(_fresh(optimizer), step.begin(_fresh(optimizer)), draw=0).trainable)
        pulled = pulled - budget.steps * noise
    right = int((np.argsort(np.argsort(pulled)) >= CANARIES - len(members)).astype(bool)[takes_part].sum())
    right += int((np.argsort(np.argsort(pulled)) < CANARIES - len(members))[~takes_part].sum())
    share = stats.beta.ppf(0.001, right, CANARIES - right + 1) - CANARIES * budget.delta / CANARIES
    return float(np.log(share / (1 - share)))


def _fresh(optimizer):
    start = jnp.zeros(CANARIES, jnp.float32)
    return StepState(trainable=start, rest=jnp.zeros(()), optimizer=optimizer.init(start))


def test_the_empirical_epsilon_does_not_exceed_the_claimed_one(budget):
    assert budget.epsilon <= 1
    assert epsilon_lower_limit(budget) <= budget.epsilon


def test_too_little_noise_is_caught(budget):
    assert epsilon_lower_limit(budget, noise_share=0.1) > budget.epsilon


def test_noise_that_is_used_again_is_caught(budget):
    assert epsilon_lower_limit(budget, reuse_noise=True) > budget.epsilon
