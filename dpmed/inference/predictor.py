"""A trained model that predicts: arrays in, arrays out, in batches of one shape.

`load_model` reads a run folder or a bundle. Inputs are values as stored, which the model normalises itself; outputs are
probabilities, masks, values or images.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, Shaped

from dpmed.errors import InputError
from dpmed.files import CONFIG_FILE, EQX_FILE
from dpmed.inference.answers import class_numbers, mean_scale, settle_threshold
from dpmed.inference.bundle.files import CHECKSUMS_FILE, WEIGHTS_FILE, StoredModel, is_bundle, read_bundle
from dpmed.inference.description import ModelDescription
from dpmed.inference.ledger import ReadLedger
from dpmed.inference.network import Network
from dpmed.inference.run_folder import is_run, read_run
from dpmed.layer_tags import computing_in
from dpmed.progress import Progress
from dpmed.runtime.jit import Compiled, on_device

_REMEDY = "Give the folder that `dpmed train` or `dpmed export` reported when it finished."
# Default number of stored values processed at once, and the most images.
_BATCH_VALUES = 1 << 22
_BATCH_IMAGES = 64


class Predictor:
    """One trained model.

    Args:
        stored: the stored model.
        batch_size: number of images processed at once; if left out, it depends on the size of an image.
    """

    def __init__(self, stored: StoredModel, *, batch_size: int | None = None) -> None:
        if batch_size is not None and batch_size < 1:
            raise InputError(f"{batch_size} is not at least 1", where="batch_size")
        self._stored = stored
        values = int(np.prod(stored.description.input_shape))
        self.batch_size = batch_size or max(1, min(_BATCH_IMAGES, _BATCH_VALUES // values))
        network = stored.network
        self._arrays = eqx.filter((network.module, network.state), eqx.is_array)
        self._forward = Compiled(_forward_function(stored.network, stored.description))

    @property
    def source(self) -> Path:
        """The folder that the model was read from."""
        return self._stored.source

    @property
    def description(self) -> ModelDescription:
        """What the model is: task, classes, input, preprocessing."""
        return self._stored.description

    @property
    def ledger(self) -> ReadLedger:
        """What the training promises."""
        return self._stored.ledger

    def predict(
        self, images: Shaped[np.ndarray, "sample *space channel"], *, threshold: float | None = None
    ) -> Shaped[np.ndarray, "sample ..."]:
        """The model's predictions for images.

        Args:
            images: `(n, *space, channel)`, values as stored, of the model's own input size.
            threshold: for masks of two classes; left out, the model's own.

        Returns:
            `(n, classes)` probabilities for classification and `(n, labels)` for several labels, float32; masks
            `(n, *space)` of class numbers for segmentation; `(n, targets)` values in the targets' units for regression;
            images `(n, *space, channel)` in the unit of stored values for reconstruction.

        Raises:
            InputError: the images have another shape, or the threshold has no meaning.
        """
        settled = settle_threshold(self.description, threshold)
        found = self.mean_scale(images)
        return class_numbers(found, settled) if self.description.task == "segmentation" else found

    def predict_stream(
        self, images: Iterable[Shaped[np.ndarray, "*space channel"]], *, threshold: float | None = None
    ) -> Iterator[Shaped[np.ndarray, "..."]]:
        """The results of `predict`, image by image in order; only one batch is in memory at a time.

        Args:
            images: one `(*space, channel)` each, values as stored; may be endless.
            threshold: for masks of two classes; left out, the model's own.

        Raises:
            InputError: an image has another shape, or the threshold has no meaning.
        """
        settled = settle_threshold(self.description, threshold)
        source = iter(images)
        while batch := list(itertools.islice(source, self.batch_size)):
            found = self.mean_scale(self._stack(batch), full=True)
            yield from class_numbers(found, settled) if self.description.task == "segmentation" else found

    def mean_scale(
        self,
        images: Shaped[np.ndarray, "sample *space channel"],
        *,
        flips: Sequence[int] = (),
        full: bool = False,
    ) -> Float[np.ndarray, "sample ..."]:
        """Probabilities or values, the scale on which models and flipped versions of an image are averaged.

        Args:
            images: `(n, *space, channel)`, values as stored.
            flips: spatial axes along which images are also flipped; the mean over all combinations is returned, with
                masks and images flipped back.
            full: pad every batch to `batch_size`, so that results do not depend on how images are grouped.

        Returns:
            As `predict`, but for segmentation `(n, *space, classes)` probabilities.
        """
        self._check(images)
        total: Any = None
        choices = [*itertools.chain.from_iterable(itertools.combinations(flips, n) for n in range(len(flips) + 1))]
        for chosen in choices:
            axes = tuple(axis + 1 for axis in chosen)
            found = mean_scale(self.logits(np.flip(images, axes) if axes else images, full=full), self.description)
            turned = np.flip(found, axes) if axes and found.ndim > 2 else found  # noqa: PLR2004 one vector per sample
            total = turned if total is None else total + turned
        return np.asarray(total / np.float32(len(choices)), np.float32) if len(choices) > 1 else total

    def logits(
        self, images: Shaped[np.ndarray, "sample *space channel"], *, full: bool = False
    ) -> Float[np.ndarray, "sample *positions outputs"]:
        """The network's own output, float32; `full` as for `mean_scale`."""
        self._check(images)
        outputs = (self.description.outputs,)
        if len(images) == 0:
            task = self.description.task
            space = self.description.input_shape[:-1] if task in ("segmentation", "reconstruction") else ()
            return np.zeros((0, *space, *outputs), np.float32)
        parts = []
        for first in range(0, len(images), self.batch_size):
            part = images[first : first + self.batch_size]
            size = self.batch_size if full or len(images) > self.batch_size else _bucket(len(part), self.batch_size)
            padded = np.zeros((size, *part.shape[1:]), part.dtype)
            padded[: len(part)] = part
            parts.append(np.asarray(self._forward(self._arrays, on_device(padded)))[: len(part)])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _check(self, images: Shaped[np.ndarray, "..."]) -> None:
        wanted = self.description.input_shape
        if images.shape[1:] != wanted or images.dtype.kind not in "uif":
            shape = ", ".join(map(str, wanted))
            raise InputError(
                f"are {images.dtype} of shape {images.shape}, but the model takes numbers of shape (n, {shape})",
                where="images",
                remedy="Give values as stored, channels last; `dpmed predict` reads and resizes files.",
            )

    def _stack(self, batch: Sequence[Shaped[np.ndarray, "*space channel"]]) -> Shaped[np.ndarray, "sample ..."]:
        for image in batch:
            self._check(image[None])
        return np.stack(batch)


def load_model(path: str | Path, *, batch_size: int | None = None, progress: Progress | None = None) -> Predictor:
    """A model from a run folder or a bundle; nothing in the files is executed.

    Args:
        path: of the folder.
        batch_size: images that go through the network at once; left out, what suits the size of an image.
        progress: reports if the data set has to be read, for runs of versions without `model.json`.

    Raises:
        InputError: the folder holds no model, or one that is damaged, unfinished or does not belong together.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError("there is no such folder", where=str(folder), remedy=_REMEDY)
    if not is_bundle(folder) and not is_run(folder):
        raise _not_a_model(folder)
    stored = read_bundle(folder) if is_bundle(folder) else read_run(folder, progress=progress)
    return Predictor(stored, batch_size=batch_size)


def _not_a_model(folder: Path) -> InputError:
    """What is missing in a folder that is neither a run nor a bundle."""
    where = str(folder)
    if (folder / WEIGHTS_FILE).is_file():
        problem = f"is a bundle without its {CHECKSUMS_FILE}, so none of its files can be checked"
        return InputError(problem, where=where, remedy="Get the bundle again from its maker.")
    if (folder / EQX_FILE).is_file():
        problem = f"is a run folder without its {CONFIG_FILE}, so its network is unknown"
        return InputError(problem, where=where, remedy="Restore the file.")
    return InputError("holds neither a training run nor a bundle", where=where, remedy=_REMEDY)


def _forward_function(network: Network, description: ModelDescription) -> Callable[[PyTree, Array], Array]:
    scaling = description.preprocessing.scaling
    rest = eqx.filter((network.module, network.state), eqx.is_array, inverse=True)

    def forward(arrays: PyTree, images: Array) -> Array:
        module, state = eqx.combine(arrays, rest)
        with computing_in(description.precision):
            return jax.vmap(
                lambda stored: module(scaling.apply(stored.astype(jnp.float32)), state)[0], axis_name="batch"
            )(images)

    return forward


def _bucket(count: int, largest: int) -> int:
    """The smallest power of two not below `count`, so that few programs are compiled."""
    return min(largest, 1 << (count - 1).bit_length())
