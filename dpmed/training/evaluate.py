"""Predictions and losses over a set of samples, in batches of one shape."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree, Shaped

from dpmed.data.base import Dataset
from dpmed.training.objective import Objective, Parameters, Rest


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a model says of a set of samples.

    Attributes:
        predictions: as the model gives them (logits, or images), float32.
        targets: as the loss takes them.
        losses: the loss of every sample.
    """

    predictions: Float[np.ndarray, "sample ..."]
    targets: Shaped[np.ndarray, "sample ..."]
    losses: Float[np.ndarray, " sample"]


class Evaluator:
    """Evaluates one objective on samples of one data set; compiled once.

    Args:
        objective: gives predictions and losses.
        dataset: where samples come from.
        batch_size: samples per batch.
    """

    def __init__(self, objective: Objective, dataset: Dataset, *, batch_size: int) -> None:
        self._dataset = dataset
        self._batch_size = batch_size

        def evaluate(trainable: Parameters, rest: Rest, inputs: jax.Array, targets: jax.Array) -> PyTree:
            predictions = objective.predict(trainable, rest, inputs)
            losses = jax.vmap(objective.sample_loss)(predictions, targets)
            return predictions, jax.vmap(objective.target)(targets), losses

        self._evaluate = jax.jit(evaluate)

    def __call__(
        self,
        trainable: Parameters,
        rest: Rest,
        indices: Int[np.ndarray, " sample"],
        *,
        advance: Callable[[int], None] = lambda _: None,
    ) -> Predictions:
        """Predictions for the samples `indices`, in that order; `advance` is told how many samples are done."""
        parts = []
        for start in range(0, len(indices), self._batch_size):
            chosen = indices[start : start + self._batch_size]
            samples = [self._dataset[int(index)] for index in chosen]
            # The last batch is filled up with its first sample, so that one compiled shape serves all.
            samples += [samples[0]] * (min(self._batch_size, len(indices)) - len(chosen))
            inputs = np.stack([sample.input for sample in samples])
            targets = np.stack([sample.target for sample in samples])
            result = self._evaluate(trainable, rest, jnp.asarray(inputs), jnp.asarray(targets))
            parts.append([np.asarray(leaf)[: len(chosen)] for leaf in result])
            advance(len(chosen))
        predictions, found, losses = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Predictions(predictions=predictions, targets=found, losses=losses)
