"""Losses compared with scikit-learn and slow loops, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from dpmed.config.loss import BinaryCrossEntropyLoss, CrossEntropyLoss, DiceLoss, HuberLoss, L1Loss, MseLoss
from dpmed.errors import InputError
from dpmed.training.losses import build_loss

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 3)).astype(np.float32)
TARGETS = np.array([0, 1, 2, 2, 1, 2], np.int32)


def softmax(logits):
    shifted = np.exp(np.float64(logits) - np.max(logits, axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def each(loss, logits, targets):
    return np.asarray(jax.vmap(loss)(jnp.asarray(logits), jnp.asarray(targets)), np.float64)


def test_cross_entropy_is_scikit_learns_log_loss():
    loss = build_loss(CrossEntropyLoss(name="cross_entropy"), task="classification", classes=3)
    found = each(loss, LOGITS, TARGETS).mean()
    assert found == pytest.approx(sk.log_loss(TARGETS, softmax(LOGITS), labels=[0, 1, 2]), rel=1e-5)


def test_binary_cross_entropy_is_scikit_learns_log_loss_of_the_sigmoid():
    loss = build_loss(BinaryCrossEntropyLoss(name="binary_cross_entropy"), task="classification", classes=2)
    targets = np.array([0, 1, 1, 0, 1, 1], np.int32)
    chances = 1 / (1 + np.exp(-np.float64(LOGITS[:, 0])))
    found = each(loss, LOGITS[:, :1], targets).mean()
    assert found == pytest.approx(sk.log_loss(targets, chances, labels=[0, 1]), rel=1e-5)


def test_class_weights_multiply_the_loss_of_their_class():
    weights = (0.5, 2.0, 3.0)
    flat = build_loss(CrossEntropyLoss(name="cross_entropy"), task="classification", classes=3)
    weighed = build_loss(
        CrossEntropyLoss(name="cross_entropy", class_weights=weights), task="classification", classes=3
    )
    wanted = each(flat, LOGITS, TARGETS) * np.array(weights)[TARGETS]
    np.testing.assert_allclose(each(weighed, LOGITS, TARGETS), wanted, rtol=1e-6)
    settings = {"name": "binary_cross_entropy", "class_weights": weights[:2]}
    binary = build_loss(BinaryCrossEntropyLoss(**settings), task="classification", classes=2)
    plain = build_loss(BinaryCrossEntropyLoss(name="binary_cross_entropy"), task="classification", classes=2)
    for target in (0, 1):
        logit, wanted_class = jnp.asarray([0.7]), jnp.int32(target)
        assert float(binary(logit, wanted_class)) == pytest.approx(weights[target] * float(plain(logit, wanted_class)))


def test_balanced_weights_are_scikit_learns_and_give_every_class_the_same_total():
    from sklearn.utils.class_weight import compute_class_weight

    counts = np.bincount(TARGETS)
    config = CrossEntropyLoss(name="cross_entropy", class_weights="balanced")
    balanced = build_loss(config, task="classification", classes=3, class_counts=counts)
    flat = build_loss(CrossEntropyLoss(name="cross_entropy"), task="classification", classes=3)
    ratios = each(balanced, LOGITS, TARGETS) / each(flat, LOGITS, TARGETS)
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=TARGETS)
    np.testing.assert_allclose(ratios, wanted[TARGETS], rtol=1e-5)
    totals = [ratios[TARGETS == label].sum() for label in range(3)]
    np.testing.assert_allclose(totals, totals[0], rtol=1e-5)


def test_a_class_without_training_samples_keeps_the_loss_finite():
    config = CrossEntropyLoss(name="cross_entropy", class_weights="balanced")
    loss = build_loss(config, task="classification", classes=3, class_counts=np.array([3, 0, 5]))
    assert np.isfinite(each(loss, LOGITS, TARGETS)).all()


def test_label_smoothing_mixes_in_the_mean_over_classes():
    loss = build_loss(CrossEntropyLoss(name="cross_entropy", label_smoothing=0.3), task="classification", classes=3)
    surprise = -np.log(softmax(LOGITS))
    wanted = 0.7 * surprise[np.arange(6), TARGETS] + 0.3 * surprise.mean(axis=1)
    np.testing.assert_allclose(each(loss, LOGITS, TARGETS), wanted, rtol=1e-5)


@pytest.mark.parametrize("space", [(4, 5), (3, 2, 4)])
def test_cross_entropy_of_a_mask_is_the_mean_over_its_voxels(space):
    logits = RNG.normal(size=(*space, 3)).astype(np.float32)
    target = RNG.integers(0, 3, space).astype(np.int32)
    weights = np.array([0.5, 1.0, 2.0])
    config = CrossEntropyLoss(name="cross_entropy", class_weights=tuple(weights))
    loss = build_loss(config, task="segmentation", classes=3)
    chances, total = softmax(logits), 0.0
    for place in np.ndindex(*space):
        total -= weights[target[place]] * np.log(chances[place][target[place]])
    assert float(loss(jnp.asarray(logits), jnp.asarray(target))) == pytest.approx(total / target.size, rel=1e-5)


def slow_dice(logits, target, shares, smooth):
    """1 - Σ_c share_c (2 Σ_v p_vc t_vc + s) / (Σ_v p_vc + Σ_v t_vc + s), voxel by voxel in double precision."""
    chances, total = softmax(logits), 0.0
    for label, share in enumerate(shares):
        shared = predicted = wanted = 0.0
        for place in np.ndindex(*target.shape):
            hit = float(target[place] == label)
            shared += chances[place][label] * hit
            predicted += chances[place][label]
            wanted += hit
        total += share * (2 * shared + smooth) / (predicted + wanted + smooth)
    return 1 - total


@pytest.mark.parametrize("space", [(4, 5), (3, 2, 4)])
@pytest.mark.parametrize(("weights", "smooth"), [(None, 1.0), ((0.1, 0.4, 0.5), 0.5), ((0.0, 2.0, 6.0), 1.0)])
def test_soft_dice_is_that_of_a_loop_over_voxels(space, weights, smooth):
    logits = RNG.normal(size=(*space, 3)).astype(np.float32)
    target = RNG.integers(0, 2, space).astype(np.int32)
    config = DiceLoss(name="dice", class_weights=weights, smooth=smooth)
    found = float(build_loss(config, task="segmentation", classes=3)(jnp.asarray(logits), jnp.asarray(target)))
    shares = np.array(weights or (1.0, 1.0, 1.0))
    assert found == pytest.approx(slow_dice(logits, target, shares / shares.sum(), smooth), rel=1e-5)


def test_soft_dice_ends_at_zero_for_a_perfect_mask_and_near_one_for_a_wrong_one():
    target = RNG.integers(0, 2, (6, 6)).astype(np.int32)
    right = 50.0 * np.eye(2, dtype=np.float32)[target]
    loss = build_loss(DiceLoss(name="dice", smooth=1e-3), task="segmentation", classes=2)
    assert float(loss(jnp.asarray(right), jnp.asarray(target))) == pytest.approx(0.0, abs=1e-6)
    assert float(loss(jnp.asarray(-right), jnp.asarray(target))) > 0.999


def test_dice_with_cross_entropy_is_the_sum_of_both():
    logits = RNG.normal(size=(4, 5, 3)).astype(np.float32)
    target = RNG.integers(0, 3, (4, 5)).astype(np.int32)
    arguments = (jnp.asarray(logits), jnp.asarray(target))
    dice, entropy, both = (
        float(build_loss(config, task="segmentation", classes=3)(*arguments))
        for config in (
            DiceLoss(name="dice"),
            CrossEntropyLoss(name="cross_entropy"),
            DiceLoss(name="dice", cross_entropy=0.25),
        )
    )
    assert both == pytest.approx(dice + 0.25 * entropy, rel=1e-6)


def test_image_losses_are_scikit_learns():
    image, target = RNG.normal(size=(2, 4, 5, 2)).astype(np.float32)
    for config, wanted in (
        (L1Loss(name="l1"), sk.mean_absolute_error(target.ravel(), image.ravel())),
        (MseLoss(name="mse"), sk.mean_squared_error(target.ravel(), image.ravel())),
    ):
        loss = build_loss(config, task="reconstruction", classes=0)
        assert float(loss(jnp.asarray(image), jnp.asarray(target))) == pytest.approx(wanted, rel=1e-5)


def test_labels_that_are_unknown_have_neither_loss_nor_gradient():
    loss = build_loss(BinaryCrossEntropyLoss(name="binary_cross_entropy"), task="multi-label", classes=3)
    logits, target = jnp.asarray(LOGITS[0]), jnp.asarray([1, -1, 0])
    chances = 1 / (1 + np.exp(-np.float64(LOGITS[0])))
    wanted = -(np.log(chances[0]) + np.log(1 - chances[2])) / 2
    value, gradient = jax.value_and_grad(loss)(logits, target)
    assert float(value) == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(gradient, [(chances[0] - 1) / 2, 0, chances[2] / 2], rtol=1e-5)
    nothing, flat = jax.value_and_grad(loss)(logits, jnp.full(3, -1))
    assert float(nothing) == 0 and not np.asarray(flat).any()


def test_label_weights_multiply_the_loss_of_their_label():
    config = BinaryCrossEntropyLoss(name="binary_cross_entropy", class_weights=(1.0, 0.0, 4.0))
    loss = build_loss(config, task="multi-label", classes=3)
    chances = 1 / (1 + np.exp(-np.float64(LOGITS[0])))
    wanted = -(np.log(chances[0]) + 4 * np.log(1 - chances[2])) / 3
    assert float(loss(jnp.asarray(LOGITS[0]), jnp.asarray([1, 1, 0]))) == pytest.approx(wanted, rel=1e-5)
    balanced = BinaryCrossEntropyLoss(name="binary_cross_entropy", class_weights="balanced")
    with pytest.raises(InputError, match="one class per sample"):
        build_loss(balanced, task="multi-label", classes=3)


def slow_huber(error, delta):
    return 0.5 * error**2 if abs(error) <= delta else delta * (abs(error) - 0.5 * delta)


@pytest.mark.parametrize(
    ("config", "measure"),
    [
        (L1Loss(name="l1"), abs),
        (MseLoss(name="mse"), lambda error: error**2),
        (HuberLoss(name="huber", delta=0.7), lambda error: slow_huber(error, 0.7)),
    ],
)
def test_numbers_that_are_unknown_have_neither_loss_nor_gradient(config, measure):
    loss = build_loss(config, task="regression", classes=3)
    values, target = jnp.asarray([0.5, 2.0, -1.0]), jnp.asarray([0.3, jnp.nan, 1.5])
    value, gradient = jax.value_and_grad(loss)(values, target)
    assert float(value) == pytest.approx((measure(0.2) + measure(-2.5)) / 2, rel=1e-5)
    assert np.isfinite(gradient).all() and gradient[1] == 0 and gradient[0] > 0 > gradient[2]
    nothing, flat = jax.value_and_grad(loss)(values, jnp.full(3, jnp.nan))
    assert float(nothing) == 0 and not np.asarray(flat).any()


LOSSES = [
    CrossEntropyLoss(name="cross_entropy"),
    BinaryCrossEntropyLoss(name="binary_cross_entropy"),
    DiceLoss(name="dice"),
    L1Loss(name="l1"),
    MseLoss(name="mse"),
    HuberLoss(name="huber"),
]
FITTING = {
    "classification": {"cross_entropy", "binary_cross_entropy"},
    "segmentation": {"cross_entropy", "dice"},
    "reconstruction": {"l1", "mse", "huber"},
    "regression": {"l1", "mse", "huber"},
    "multi-label": {"binary_cross_entropy"},
}


@pytest.mark.parametrize("task", FITTING)
@pytest.mark.parametrize("config", LOSSES, ids=lambda config: config.name)
def test_a_loss_for_another_task_is_refused_and_fitting_ones_are_named(config, task):
    if config.name in FITTING[task]:
        assert callable(build_loss(config, task=task, classes=2))
        return
    with pytest.raises(InputError, match=rf"loss\.name.*{config.name} is not a loss for {task}") as refusal:
        build_loss(config, task=task, classes=2)
    for name in FITTING[task]:
        assert name in str(refusal.value)


@pytest.mark.parametrize(
    ("config", "task", "words"),
    [
        (BinaryCrossEntropyLoss(name="binary_cross_entropy"), "classification", "two classes, but the data set has 3"),
        (CrossEntropyLoss(name="cross_entropy", class_weights=(1.0, 2.0)), "classification", r"3 numbers.*got 2"),
        (CrossEntropyLoss(name="cross_entropy", class_weights=(0.0, 0.0, 0.0)), "classification", "not all zero"),
        (DiceLoss(name="dice", class_weights=(1.0,)), "segmentation", "3 numbers"),
        (CrossEntropyLoss(name="cross_entropy", class_weights="balanced"), "segmentation", "one class per sample"),
    ],
)
def test_weights_and_classes_that_do_not_fit_are_refused(config, task, words):
    with pytest.raises(InputError, match=words):
        build_loss(config, task=task, classes=3)
