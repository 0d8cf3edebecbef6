"""Training only the head, on features: the frozen network's output for each sample is computed once, not in every step.

This is the only place that knows about it. The plan's data set then provides features instead of images, and the
objective applies the head to them. Weights, records, sampling, noise and accounting are those of training on images,
and so is the final model, since frozen weights are stored with the trained ones as usual. Results equal those of
training on images, except for rounding.

Sensitivity is preserved bit for bit: each sample's features are computed separately, not in a batch, so they depend
only on that sample and the frozen weights.
"""

import hashlib
import json
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Shaped

from dpmed.config.model import CustomModel
from dpmed.data.base import Scaling
from dpmed.data.loader import Loader, Records
from dpmed.data.storage.features import Batches, FeatureDataset, Layout, kept_features
from dpmed.files import user_cache
from dpmed.layer_tags import computing_in
from dpmed.models.finetuning.trunk import features_of, head_of
from dpmed.planning.initial_state import InitialState
from dpmed.planning.plan import Plan
from dpmed.progress import Progress
from dpmed.runtime.jit import Compiled, on_device
from dpmed.training.objective import NonTrainable, Objective

_VERSION = 1  # of the layout, and of how features are computed
_AT_ONCE = 64
_AS_THEY_ARE = Scaling(scale=1.0, mean=(0.0,), std=(1.0,))


def on_features(plan: Plan, begun: InitialState, progress: Progress) -> tuple[Plan, InitialState]:
    """Plan and initial state for training on features if only the head is trained, without augmentation; else as given.

    Args:
        plan: the plan for training on images.
        begun: the initial state for training on images.
        progress: shows the computation of features.

    Raises:
        InputError: a sample cannot be read.
    """
    if not trains_on_features(plan, begun.objective):
        return plan, begun
    needed = [*plan.split.parts().values(), *plan.members]
    numbers = np.unique(np.concatenate(needed)).astype(np.int64)
    sample = plan.dataset[int(numbers[0])]
    trunk = _Trunk(begun.objective, begun.state.rest, begun.state.trainable)
    layout = Layout(
        samples=len(numbers),
        feature_shape=trunk.shape(sample.input),
        target_shape=sample.target.shape,
        target_dtype=sample.target.dtype.str,
    )
    key = _digest(plan, begun, numbers, progress)
    base = getattr(plan.config.data, "cache_folder", None) or user_cache()
    make = partial(_make, plan, trunk, numbers, progress)
    found = kept_features(base, key, layout, make, progress)
    if found is None:
        return plan, begun
    features = FeatureDataset(plan.dataset, numbers, *found)
    objective = replace(begun.objective, forward=_forward, scaling=_AS_THEY_ARE)
    return replace(plan, dataset=features), replace(begun, objective=objective)


def trains_on_features(plan: Plan, objective: Objective) -> bool:
    """Whether each sample's features stay the same throughout training and may be kept."""
    config, model = plan.config, plan.model
    pairs = list(zip(*map(jax.tree.leaves, (model.stages, model.trained)), strict=True))
    return (
        config.training.keep_features
        # If decoded images are not to be kept on disk, neither are features.
        and getattr(config.data, "cache", True)
        and plan.dataset.info.task in ("classification", "multi-label", "regression")
        and not isinstance(config.model, CustomModel)
        and all((stage == 0) == on for stage, on in pairs)
        # A linear model is all head: its features would just be the images.
        and any(stage > 0 for stage, _ in pairs)
        and objective.augment is None
        and not model.mixes_samples
    )


def _forward(
    model: Any, x: Float[Array, "..."], state: PyTree, *, key: PRNGKeyArray | None = None
) -> tuple[Float[Array, "..."], PyTree]:
    del key
    return head_of(model, x), state


class _Trunk:
    """The part of the network before the head, applied to samples as stored."""

    def __init__(self, objective: Objective, rest: NonTrainable, trainable: PyTree) -> None:
        def one(rest: NonTrainable, trainable: PyTree, stored: Array) -> Array:
            model = eqx.combine(trainable, rest.frozen, objective.static)
            with computing_in(objective.precision):
                return features_of(model, objective.normalise(stored), rest.state)

        self._one = partial(one, rest, trainable)
        # One by one: in a batch, a sample's last bits may depend on its position.
        self._all = Compiled(lambda rest, trainable, stored: jax.lax.map(partial(one, rest, trainable), stored))
        self._weights = rest, trainable

    def shape(self, stored: Shaped[np.ndarray, "..."]) -> tuple[int, ...]:
        """The shape of one sample's features."""
        wanted = jax.ShapeDtypeStruct(stored.shape, stored.dtype)  # type: ignore[no-untyped-call] # jax gives it no types
        return tuple(jax.eval_shape(self._one, wanted).shape)

    def __call__(self, stored: Shaped[np.ndarray, "sample ..."]) -> Float[np.ndarray, "sample ..."]:
        """Features of several samples."""
        return np.asarray(self._all(*self._weights, on_device(stored)))


def _batches(plan: Plan, numbers: Int[np.ndarray, " sample"], name: str, progress: Progress) -> Any:
    loader = Loader(plan.dataset, list(numbers[:, None]), microbatch=min(_AT_ONCE, len(numbers)))
    with progress.task(name, total=len(numbers), unit="samples") as task:
        for microbatches in loader.stream([np.arange(len(numbers))]):
            for records in microbatches:
                yield records
                task.advance(int(records.mask.sum()))


def _make(plan: Plan, trunk: _Trunk, numbers: Int[np.ndarray, " sample"], progress: Progress) -> Batches:
    records: Records
    for records in _batches(plan, numbers, "computing features", progress):
        yield trunk(records.inputs[:, 0])[records.mask], records.targets[records.mask, 0]


def _digest(plan: Plan, begun: InitialState, numbers: Int[np.ndarray, " sample"], progress: Progress) -> str:
    """A digest of all that features depend on: contents of samples, frozen weights, software and device."""
    objective, config = begun.objective, plan.config
    device = jax.devices()[0]
    facts = [
        _VERSION,
        [version(name) for name in ("dpmed", "jax", "jaxlib", "equinox")],
        [device.platform, device.device_kind],
        objective.precision,
        repr(objective.scaling),
        plan.dataset.info.input_shape,
        config.model.model_dump(mode="json", exclude={"pretrained", "train_only", "unfreeze_epochs"}),
    ]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for path, leaf in jax.tree.leaves_with_path(begun.state.rest):
        array = np.asarray(leaf)
        digest.update(repr([jax.tree_util.keystr(path), array.shape, array.dtype.str]).encode())
        digest.update(array.tobytes())
    digest.update(numbers.tobytes())
    for records in _batches(plan, numbers, "looking for kept features", progress):
        inputs, targets = records.inputs[records.mask, 0], records.targets[records.mask, 0]
        digest.update(repr([inputs.shape, inputs.dtype.str, targets.shape, targets.dtype.str]).encode())
        digest.update(inputs.tobytes())
        digest.update(targets.tobytes())
    return digest.hexdigest()[:48]
