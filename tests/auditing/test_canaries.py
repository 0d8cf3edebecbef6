"""Canaries go the way of all records, and show the faults that they are there to show."""

import jax
import numpy as np
import pytest

from dpmed.auditing.canaries import Mislabelled, observe_gradients, observe_inputs
from dpmed.auditing.measured_noise import measure_noise
from dpmed.config.load import load_config
from dpmed.dpsgd import clipping as clipping_room
from dpmed.dpsgd import noise_ahead
from dpmed.dpsgd import step as step_room
from dpmed.errors import InputError
from dpmed.planning.plan import make_plan
from dpmed.progress import Silent

SETTINGS = [
    "optimizer.name=sgd", "model.width=[4]", "data.limit=400", "training.batch_size=140", "training.epochs=3",
    "privacy.epsilon=3",
]  # fmt: skip


pytestmark = pytest.mark.usefixtures("as_users_run_it")


def plan(*settings):
    return make_plan(load_config("quickstart", [*SETTINGS, *settings]).config, Silent())


INCLUDED = np.arange(80) % 2 == 0


@pytest.mark.parametrize("clipping", ["flat", "per-layer", "automatic"])
def test_noisy_gradients_are_those_that_the_claim_says(clipping):
    # At ε = 50 the means are over ten standard errors apart; per layer a canary has the room of one layer in five.
    audited = plan(f"privacy.clipping={clipping}", "privacy.epsilon=50")
    observed, predict = observe_gradients(audited, INCLUDED, Silent())
    # Σ over steps of x has mean q T for those who are in, 0 for others; here by the ratio, whose sign is the same.
    ratio = observed.scores["likelihood"]
    assert ratio[INCLUDED].mean() > ratio[~INCLUDED].mean()
    assert len(predict(np.arange(5)).losses) == 5


def test_without_noise_every_canary_is_told_apart(monkeypatch):
    monkeypatch.setattr(
        step_room, "shaped_like", lambda tree, normal, *, std: jax.tree.map(lambda leaf: 0 * leaf, tree)
    )
    observed, _ = observe_gradients(plan("training.epochs=12"), INCLUDED, Silent())
    ratio = observed.scores["likelihood"]
    assert ratio[INCLUDED].min() > ratio[~INCLUDED].max()


def test_noise_that_is_used_twice_is_given_away_by_variation(monkeypatch):
    real = noise_ahead.standard_normal
    monkeypatch.setattr(noise_ahead, "standard_normal", lambda key, draw, **keys: real(key, 0, **keys))
    observed, _ = observe_gradients(plan("training.epochs=12"), INCLUDED, Silent())
    variation = observed.scores["variation"]
    assert variation[INCLUDED].min() > variation[~INCLUDED].max()
    assert measured(observed, plan()).noise_multiplier_upper < 1e-3


def measured(observed, audited):
    rate = audited.budget.sampling_rate
    return measure_noise(observed.seen, observed.included, sampling_rate=rate, level=0.01)


def test_the_noise_and_a_doubled_clipping_norm_are_measured(monkeypatch):
    real = clipping_room._flat
    monkeypatch.setattr(clipping_room, "_flat", lambda squares, bound: real(squares, 2 * bound))
    # At ε = 50 the noise lets 40 canaries show the step every time; at ε = 3 one run in six would not (simulated).
    audited = plan("training.epochs=12", "privacy.epsilon=50")
    observed, _ = observe_gradients(audited, INCLUDED, Silent())
    found = measured(observed, audited)
    # 40 canaries and 24 steps on each side: the noise is known to 2.3 %.
    assert found.deviation == pytest.approx(audited.budget.noise_multiplier, rel=0.1)
    assert found.step == pytest.approx(2.0, rel=0.5)
    assert found.noise_multiplier_upper < audited.budget.noise_multiplier


def test_what_cannot_be_audited_is_refused():
    with pytest.raises(InputError, match="changes the clipping norm"):
        observe_gradients(plan("privacy.clipping=adaptive"), INCLUDED, Silent())


def test_mislabelled_images_are_further_samples_under_other_labels():
    audited = plan()
    observed, predict = observe_inputs(audited, 20, np.random.default_rng(0), Silent())
    assert observed.scores["loss"].shape == (20,) and len(predict(np.arange(3)).losses) == 3
    held_out = {*audited.split.validation.tolist(), *audited.split.test.tolist()}
    assert len(observed.planted) == observed.included.sum() and set(observed.planted.tolist()) <= held_out
    sources = audited.split.test[:4]
    wrong = (audited.dataset.labels[sources] + 1) % 10
    dataset = Mislabelled(audited.dataset, sources, wrong)
    assert len(dataset) == len(audited.dataset) + 4
    for place, source in enumerate(sources):
        sample = dataset[len(audited.dataset) + place]
        assert np.array_equal(sample.input, audited.dataset[int(source)].input)
        assert int(sample.target) == wrong[place] != int(audited.dataset[int(source)].target)
