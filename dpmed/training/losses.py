"""Losses for one prediction and its target."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from dpmed.config.loss import (
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    CustomLoss,
    DiceLoss,
    HuberLoss,
    L1Loss,
    LossConfig,
    MseLoss,
)
from dpmed.errors import InputError
from dpmed.factories import guarded, load_factory

SampleLoss = Callable[[Array, Array], Float[Array, ""]]

_BINARY = 2
_TASKS = {
    "cross_entropy": ("classification", "segmentation"),
    "binary_cross_entropy": ("classification", "multi-label"),
    "dice": ("segmentation",),
    "l1": ("reconstruction", "regression"),
    "mse": ("reconstruction", "regression"),
    "huber": ("reconstruction", "regression"),
}


def build_loss(  # noqa: C901, PLR0911 one per name
    config: LossConfig, *, task: str, classes: int, class_counts: Int[np.ndarray, " classes"] | None = None
) -> SampleLoss:
    """The loss that `config` describes.

    Args:
        config: the loss.
        task: task of the data set.
        classes: number of classes or labels of the data set.
        class_counts: number of training samples of each class, for `class_weights = "balanced"`; None if samples have
            no single class.

    Raises:
        InputError: the loss does not fit the task or the classes.
    """
    if isinstance(config, CustomLoss):
        return _custom(config)
    if task not in _TASKS[config.name]:
        fitting = [name for name, tasks in _TASKS.items() if task in tasks]
        remedy = f"Use {' or '.join(fitting)}."
        raise InputError(f"{config.name} is not a loss for {task}", where="loss.name", remedy=remedy)
    match config:
        case CrossEntropyLoss():
            weights = _weights(config.class_weights, classes, class_counts)
            return lambda logits, target: _cross_entropy(logits, target, weights, config.label_smoothing)
        case BinaryCrossEntropyLoss():
            if task == "multi-label":
                label_weights = _weights(config.class_weights, classes, None)
                return lambda logits, target: _labels_cross_entropy(logits, target, label_weights)
            if classes != _BINARY:
                remedy = 'Use name = "cross_entropy".'
                raise InputError(f"needs two classes, but the data set has {classes}", where="loss.name", remedy=remedy)
            weights = _weights(config.class_weights, classes, class_counts)
            return lambda logits, target: _binary_cross_entropy(logits, target, weights)
        case DiceLoss():
            weights = _weights(config.class_weights, classes, None)
            return lambda logits, target: _dice(logits, target, weights / weights.sum(), config)
        case L1Loss():
            return _mean_error(jnp.abs, task)
        case MseLoss():
            return _mean_error(jnp.square, task)
        case HuberLoss():
            return _mean_error(lambda error: optax.losses.huber_loss(error, delta=config.delta), task)


def _custom(config: CustomLoss) -> SampleLoss:
    loaded = load_factory(config.factory, where="loss.factory")
    made = loaded.call(**config.arguments)
    where = f"loss.factory = {loaded.name!r}"
    if not callable(made):
        problem = f"returned an object of type {type(made).__name__}, not a function of prediction and target"
        raise InputError(problem, where=where)

    def loss(prediction: Array, target: Array) -> Float[Array, ""]:
        found = guarded(lambda: made(prediction, target), where=where)
        shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
        if shape != () or dtype != jnp.float32:
            raise InputError(f"returns {dtype} of shape {shape}; one float32 number per sample is needed", where=where)
        scalar: Float[Array, ""] = found
        return scalar

    return loss


def _weights(
    given: tuple[float, ...] | str | None, classes: int, counts: Int[np.ndarray, " classes"] | None
) -> Float[np.ndarray, " classes"]:
    if given is None:
        return np.ones(classes, np.float32)
    if isinstance(given, str):
        if counts is None:
            remedy = "Give one number per class."
            raise InputError(f"{given} needs one class per sample", where="loss.class_weights", remedy=remedy)
        # A class without training samples has no loss to weight.
        return (counts.sum() / (classes * np.maximum(counts, 1))).astype(np.float32)
    if len(given) != classes or not any(given):
        raise InputError(
            f"must be {classes} numbers, one per class, not all zero (got {len(given)})", where="loss.class_weights"
        )
    return np.asarray(given, np.float32)


def _cross_entropy(
    logits: Float[Array, "*space classes"],
    target: Int[Array, "*space"],
    weights: Float[np.ndarray, " classes"],
    smoothing: float,
) -> Float[Array, ""]:
    wanted = optax.smooth_labels(jax.nn.one_hot(target, logits.shape[-1], dtype=logits.dtype), smoothing)
    log_chances = jax.nn.log_softmax(logits)
    surprise = -jnp.sum(wanted * log_chances, axis=-1) * jnp.asarray(weights)[target]
    return jnp.mean(surprise)


def _binary_cross_entropy(
    logits: Float[Array, " 1"], target: Int[Array, ""], weights: Float[np.ndarray, " 2"]
) -> Float[Array, ""]:
    return optax.sigmoid_binary_cross_entropy(logits[0], target.astype(logits.dtype)) * jnp.asarray(weights)[target]


def _labels_cross_entropy(
    logits: Float[Array, " label"], target: Int[Array, " label"], weights: Float[np.ndarray, " label"]
) -> Float[Array, ""]:
    """The mean over the labels that are known; 0 if none is."""
    known = target >= 0
    wanted = jnp.where(known, target, jnp.zeros_like(target)).astype(logits.dtype)
    losses = optax.sigmoid_binary_cross_entropy(logits, wanted) * jnp.asarray(weights)
    return _mean_where(losses, known)


def _mean_error(measure: Callable[[Array], Array], task: str) -> SampleLoss:
    """The mean of a measure of the error; in regression over the known values (not NaN), 0 if there are none."""

    def of_image(image: Array, target: Array) -> Float[Array, ""]:
        return jnp.mean(measure(image - target))

    def of_numbers(values: Array, target: Array) -> Float[Array, ""]:
        known = jnp.isfinite(target)
        # Replaced before the difference is taken: a NaN that is left out only afterwards still has a NaN gradient.
        return _mean_where(measure(values - jnp.where(known, target, values)), known)

    return of_numbers if task == "regression" else of_image


def _mean_where(losses: Array, known: Array) -> Float[Array, ""]:
    count = jnp.maximum(jnp.sum(known), 1).astype(losses.dtype)
    return jnp.sum(jnp.where(known, losses, jnp.zeros_like(losses))) / count


def _dice(
    logits: Float[Array, "*space classes"],
    target: Int[Array, "*space"],
    shares: Float[np.ndarray, " classes"],
    config: DiceLoss,
) -> Float[Array, ""]:
    classes = logits.shape[-1]
    chances = jax.nn.softmax(logits).reshape(-1, classes)
    wanted = jax.nn.one_hot(target.reshape(-1), classes, dtype=logits.dtype)
    shared = jnp.sum(chances * wanted, axis=0)
    total = jnp.sum(chances, axis=0) + jnp.sum(wanted, axis=0)
    dice = (2.0 * shared + config.smooth) / (total + config.smooth)
    loss = 1.0 - jnp.sum(jnp.asarray(shares) * dice)
    if config.cross_entropy:
        flat = np.ones(classes, np.float32)
        loss = loss + config.cross_entropy * _cross_entropy(logits, target, flat, 0.0)
    return loss
