"""Predictions for many samples, in batches of equal shape that are loaded in the background."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from dpmed.data.base import Dataset
from dpmed.data.loader import Loader
from dpmed.dpsgd.devices import Devices
from dpmed.runtime.distributed import ALONE, Processes
from dpmed.runtime.jit import Compiled, on_device
from dpmed.training.objective import NonTrainable, Objective, Parameters

_FACTOR = 2


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """A model's predictions for a set of samples.

    Attributes:
        predictions: logits for classification and multi-label, class numbers for segmentation, images for
            reconstruction, values in the targets' own units for regression.
        targets: class numbers, labels (-1: unknown), masks, images in the same unit, or values (NaN: unknown).
        losses: the loss of every sample.
    """

    predictions: Shaped[np.ndarray, "sample ..."]
    targets: Shaped[np.ndarray, "sample ..."]
    losses: Float[np.ndarray, " sample"]

    def of(self, chosen: Bool[np.ndarray, " sample"]) -> "Predictions":
        """The predictions for some of the samples."""
        return Predictions(
            predictions=self.predictions[chosen], targets=self.targets[chosen], losses=self.losses[chosen]
        )


class Evaluator:
    """Evaluates one objective on samples from one data set; compiled once for each size of batch.

    Args:
        objective: computes predictions and losses.
        dataset: where samples come from.
        batch_size: samples per batch at most.
        usual: how many samples are evaluated most often; the same batches serve others, if these are not far fewer or
            could not be done in far fewer batches.
        devices: devices that share a batch and hold the weights; None for the default device alone.
        processes: processes to which the devices belong; each loads what its devices evaluate, and all get all
            predictions.
    """

    def __init__(
        self,
        objective: Objective,
        dataset: Dataset,
        *,
        batch_size: int,
        usual: int | None = None,
        devices: Devices | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self._devices = devices
        self._processes = processes
        self._dataset = dataset
        self._batch_size = batch_size
        self._usual = usual
        task = dataset.info.task

        def evaluate(trainable: Parameters, rest: NonTrainable, inputs: Array, targets: Array, mask: Array) -> PyTree:
            predictions = objective.predict(trainable, rest, inputs)
            wanted = jax.vmap(objective.target)(targets)
            losses = jax.vmap(objective.loss)(predictions, wanted)
            if task == "segmentation":
                # Logits of whole scans would fill the memory; only their class is needed.
                small = jnp.uint8 if predictions.shape[-1] <= 256 else jnp.int32  # noqa: PLR2004 what a byte holds
                predictions, wanted = jnp.argmax(predictions, axis=-1).astype(small), wanted.astype(small)
            result = predictions, wanted, losses, mask
            return result if devices is None else devices.whole(result)

        self._evaluate = Compiled(evaluate)

    def __call__(
        self,
        trainable: Parameters,
        rest: NonTrainable,
        indices: Int[np.ndarray, " sample"],
        *,
        advance: Callable[[int], None] = lambda _: None,
    ) -> Predictions:
        """Predictions for the samples `indices`, in that order; `advance` receives the number of samples done."""
        parts = []
        batch_size, share = self._batch_for(len(indices)), (self._processes.index, self._processes.world_size)
        loader = Loader(self._dataset, list(indices[:, None]), microbatch=batch_size, share=share)
        split = on_device if self._devices is None else self._devices.split
        # One step of the loader: its microbatches are prepared ahead.
        for microbatches in loader.stream([np.arange(len(indices))]):
            for records in microbatches:
                batch = records.inputs[:, 0], records.targets[:, 0], records.mask
                result = self._evaluate(trainable, rest, *split(batch))
                *columns, mask = map(np.asarray, result)
                parts.append([column[mask] for column in columns])
                advance(int(mask.sum()))
        predictions, targets, losses = (np.concatenate(column) for column in zip(*parts, strict=True))
        scaling = self._dataset.info.target_scaling
        if scaling is not None:
            predictions, targets = scaling.undo(predictions), scaling.undo(targets)
        return Predictions(predictions=predictions, targets=targets, losses=losses)

    def _batch_for(self, samples: int) -> int:
        own = min(self._batch_size, samples)
        usual = own if self._usual is None else min(self._batch_size, self._usual)
        # Compiling another program for the test takes longer than a few more rows or a second batch.
        return usual if own <= _FACTOR * usual and usual <= _FACTOR * own else own
