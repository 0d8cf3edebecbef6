"""Metrics and losses against scikit-learn, and what bootstrap intervals hold."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import metrics as sk

from dpmed.config.loss import BinaryCrossEntropyLoss, CrossEntropyLoss
from dpmed.config.optimizer import AdamOptimizer, NadamOptimizer, SgdOptimizer
from dpmed.config.schedule import ConstantSchedule, CosineSchedule, StepsSchedule
from dpmed.errors import InputError
from dpmed.training.losses import build_loss
from dpmed.training.metrics import bootstrap, evaluate
from dpmed.training.optim import build_optimizer, build_schedule


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_scikit_learns(seed, classes):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(60, classes)).astype(np.float32)
    targets = rng.integers(0, max(classes, 2), 60)
    chosen = (logits[:, 0] > 0).astype(int) if classes == 1 else logits.argmax(1)
    found = evaluate((), logits, targets, task="classification", class_names=())
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(targets, chosen))
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(targets, chosen))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(targets, chosen))


def test_intervals_hold_the_point_and_shrink_with_data():
    rng = np.random.default_rng(0)
    widths = []
    for count in (50, 2000):
        targets = rng.integers(0, 2, count)
        logits = np.where(rng.random(count) < 0.8, targets, 1 - targets)[:, None].astype(np.float32) - 0.5
        settings = {"task": "classification", "class_names": ()}
        low, high = bootstrap(("accuracy",), logits, targets, resamples=200, seed=1, **settings)["accuracy"]
        assert low <= evaluate(("accuracy",), logits, targets, **settings)["accuracy"] <= high
        widths.append(high - low)
    assert widths[1] < 0.3 * widths[0]
    assert bootstrap(("accuracy",), logits, targets, resamples=0, seed=1, **settings) == {}


def test_losses_are_scikit_learns():
    logits = np.asarray([0.3, -1.0, 2.0], np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum()
    loss = build_loss(CrossEntropyLoss(name="cross_entropy"), task="classification", classes=3)
    assert float(loss(jnp.asarray(logits), jnp.int32(1))) == pytest.approx(-np.log(probabilities[1]), rel=1e-5)
    binary = build_loss(BinaryCrossEntropyLoss(name="binary_cross_entropy"), task="classification", classes=2)
    found = float(binary(jnp.asarray([0.7]), jnp.int32(1)))
    assert found == pytest.approx(
        sk.log_loss([1], [[1 - 1 / (1 + np.exp(-0.7)), 1 / (1 + np.exp(-0.7))]], labels=[0, 1]), rel=1e-5
    )
    with pytest.raises(InputError, match="two classes"):
        build_loss(BinaryCrossEntropyLoss(name="binary_cross_entropy"), task="classification", classes=3)


def test_schedules_step_by_step():
    constant = build_schedule(ConstantSchedule(name="constant"), 0.1, steps=10, steps_per_epoch=2)
    assert [float(constant(step)) for step in (0, 9)] == [pytest.approx(0.1)] * 2
    cosine = build_schedule(CosineSchedule(name="cosine", warmup_epochs=1, final=0.5), 1.0, steps=12, steps_per_epoch=2)
    assert [float(cosine(step)) for step in (0, 1, 2, 7, 12)] == pytest.approx([0, 0.5, 1, 0.75, 0.5])
    steps = build_schedule(StepsSchedule(name="steps", epochs=(2.0,), factor=0.1), 1.0, steps=10, steps_per_epoch=3)
    assert [float(steps(step)) for step in (0, 5, 6, 7)] == pytest.approx([1, 1, 0.1, 0.1], abs=1e-6) or float(
        steps(7)
    ) < 0.2


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (SgdOptimizer(name="sgd", learning_rate=0.1), optax.sgd(0.1)),
        (SgdOptimizer(name="sgd", learning_rate=0.1, momentum=0.9, nesterov=True), optax.sgd(0.1, 0.9, nesterov=True)),
        (AdamOptimizer(name="adam", learning_rate=0.1), optax.adam(0.1)),
        (AdamOptimizer(name="adam", learning_rate=0.1, weight_decay=0.01), optax.adamw(0.1, weight_decay=0.01)),
        (NadamOptimizer(name="nadam", learning_rate=0.1), optax.nadam(0.1)),
    ],
)
def test_optimizers_are_optaxs(config, wanted):
    import jax

    with jax.numpy_dtype_promotion("standard"):
        ours = build_optimizer(config, ConstantSchedule(name="constant"), steps=5, steps_per_epoch=1)
        weights = {"w": jnp.asarray([1.0, -2.0])}
        states = [ours.init(weights), wanted.init(weights)]
        both = [weights, weights]
        for turn in range(3):
            for index, optimizer in enumerate((ours, wanted)):
                gradient = {"w": jnp.asarray([0.3, 0.1 * turn])}
                updates, states[index] = optimizer.update(gradient, states[index], both[index])
                both[index] = optax.apply_updates(both[index], updates)
    np.testing.assert_allclose(both[0]["w"], both[1]["w"], rtol=1e-6)
