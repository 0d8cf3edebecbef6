"""Losses of one prediction and its target."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from dpmed.config.loss import BinaryCrossEntropyLoss, CrossEntropyLoss, LossConfig
from dpmed.errors import InputError

SampleLoss = Callable[[Array, Array], Float[Array, ""]]

_BINARY = 2


def build_loss(config: LossConfig, *, classes: int) -> SampleLoss:
    """The loss that `config` describes.

    Args:
        config: the `[loss]` table.
        classes: how many the data set has.

    Raises:
        InputError: the loss does not fit the classes.
    """
    match config:
        case CrossEntropyLoss():
            return lambda logits, target: _cross_entropy(logits, target, config.label_smoothing)
        case BinaryCrossEntropyLoss():
            if classes != _BINARY:
                remedy = 'Use name = "cross_entropy".'
                raise InputError(f"needs two classes, the data set has {classes}", where="[loss] name", remedy=remedy)
            return _binary_cross_entropy


def _cross_entropy(logits: Float[Array, " classes"], target: Int[Array, ""], smoothing: float) -> Float[Array, ""]:
    wanted = optax.smooth_labels(jax.nn.one_hot(target, logits.shape[0], dtype=logits.dtype), smoothing)
    return -jnp.sum(wanted * jax.nn.log_softmax(logits))


def _binary_cross_entropy(logits: Float[Array, " 1"], target: Int[Array, ""]) -> Float[Array, ""]:
    return optax.sigmoid_binary_cross_entropy(logits[0], target.astype(logits.dtype))
