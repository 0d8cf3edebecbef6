"""From stored samples to losses and predictions: normalise, augment, apply the model, compare with the target.

Everything here runs on the device inside the jitted step. A record's loss is the weighted sum over its views, and the
loss of a view is the mean over its augmented versions (augmentation multiplicity, De et al., 2022). So each record has
one gradient, which is clipped as a whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key, PyTree, Shaped

from dpmed.data.base import Scaling
from dpmed.data.loader import Records
from dpmed.layer_tags import Precision, computing_in

Parameters = PyTree[Float[Array, "..."]]
SampleLoss = Callable[[Array, Array], Float[Array, ""]]
# `forward(model, x, state, key=key) -> (prediction, state)`.
Forward = Callable[..., tuple[Array, PyTree]]
Augment = Callable[[Key[Array, ""], Float[Array, "*space channel"], Array], tuple[Array, Array]]


def whole_network(
    model: Any, x: Float[Array, "*space channel"], state: PyTree, *, key: Key[Array, ""] | None = None
) -> tuple[Float[Array, "..."], PyTree]:
    """The model itself, applied to an image."""
    found: tuple[Array, PyTree] = model(x, state, key=key)
    return found


class NonTrainable(eqx.Module):
    """Everything in a model that is not trained.

    Attributes:
        frozen: weights that stay as they are.
        state: running statistics (of batch norm); empty for models that have none.
    """

    frozen: PyTree
    state: PyTree


@dataclass(frozen=True, kw_only=True, eq=False)
class Objective:
    """What training minimises for one data set and one model.

    Attributes:
        static: the part of the model without floating-point arrays.
        loss: the loss of one prediction and its target.
        augment: changes one normalised sample and its target at random; None leaves them as they are.
        multiplicity: augmented versions per sample and step, at least 1.
        image_target: whether the target is an image, normalised like the input.
        scaling: maps stored inputs to those that the model sees.
        target_scaling: maps stored regression targets to those that the model predicts; None for other tasks.
        begins: for each trained leaf, the step at which its training begins; None if all are trained from the start.
        precision: precision of the layers' products; everything else is float32.
        forward: maps the model and a normalised input to the prediction; if inputs are features, it uses only part of
            the model.
    """

    static: PyTree
    loss: SampleLoss
    augment: Augment | None
    multiplicity: int
    image_target: bool
    scaling: Scaling
    begins: PyTree[int] | None = None
    target_scaling: Scaling | None = None
    precision: Precision = "float32"
    forward: Forward = whole_network

    def normalise(self, stored: Shaped[Array, "*space channel"]) -> Float[Array, "*space channel"]:
        """A stored sample as float32, normalised by the data set's mean and std."""
        normalised: Float[Array, "*space channel"] = self.scaling.apply(stored.astype(jnp.float32))
        return normalised

    def record_loss(self, trainable: Parameters, rest: NonTrainable, record: PyTree[Array]) -> Float[Array, ""]:
        """The loss of a single record, from which per-sample gradients are computed.

        Args:
            trainable: trained leaves.
            rest: all other leaves.
            record: `inputs (view, *space, channel)`, `targets (view, ...)`, `weights (view,)`, `key (2,)` uint32 from
                which all randomness of the record is derived, and `step ()` int32.
        """
        trainable = self._frozen_until_begun(trainable, record["step"])
        view_loss = partial(self._view_loss, trainable, rest)
        views = (record["inputs"], record["targets"], self._view_keys(record))
        if record["weights"].shape == (1,):
            # Not as a batch of one: on the CPU, XLA takes ten times as long for sums next to an axis of length one.
            loss, _ = view_loss(*(leaf[0] for leaf in views))
            return loss * record["weights"][0]
        losses, _ = jax.vmap(view_loss)(*views)
        return jnp.sum(losses * record["weights"])

    def batch_loss(
        self, trainable: Parameters, rest: NonTrainable, records: PyTree[Array], mask: Bool[Array, " batch"]
    ) -> tuple[Float[Array, ""], NonTrainable]:
        """The sum of the losses of a microbatch, and the model's running statistics after it.

        Samples may interact here, in batch norm: all views of all records form one batch under the axis name `batch`.
        """
        trainable = self._frozen_until_begun(trainable, records["step"][0])
        keys = jax.vmap(self._view_keys)(records)

        def flat(leaf: Array) -> Array:
            return leaf.reshape(-1, *leaf.shape[2:])

        losses, state = jax.vmap(partial(self._view_loss, trainable, rest), out_axes=(0, None), axis_name="batch")(
            flat(records["inputs"]), flat(records["targets"]), flat(keys)
        )
        weights = jnp.where(mask[:, None], records["weights"], jnp.zeros_like(records["weights"]))
        return jnp.sum(losses * weights.reshape(-1)), NonTrainable(frozen=rest.frozen, state=state)

    def predict(
        self, trainable: Parameters, rest: NonTrainable, inputs: Shaped[Array, "batch *space channel"]
    ) -> Float[Array, "batch ..."]:
        """Predictions without augmentation, with the model in inference mode."""
        model = eqx.nn.inference_mode(self._model(trainable, rest))
        with computing_in(self.precision):
            return jax.vmap(
                lambda stored: self.forward(model, self.normalise(stored), rest.state)[0], axis_name="batch"
            )(inputs)

    def target(self, stored: Shaped[Array, "..."]) -> Array:
        """A stored target in the form that the loss takes."""
        if self.target_scaling is not None:
            values: Float[Array, " target"] = self.target_scaling.apply(stored.astype(jnp.float32))
            return values
        return self.normalise(stored) if self.image_target else stored.astype(jnp.int32)

    def _model(self, trainable: Parameters, rest: NonTrainable) -> Any:
        return eqx.combine(trainable, rest.frozen, self.static)

    def _frozen_until_begun(self, trainable: Parameters, step: Int[Array, ""]) -> Parameters:
        """The leaves, without gradients for those that are not trained yet: clipping then sees only what is trained."""
        if self.begins is None:
            return trainable
        return jax.tree.map(
            lambda leaf, begin: jnp.where(step >= begin, leaf, jax.lax.stop_gradient(leaf)), trainable, self.begins
        )

    def _view_keys(self, record: PyTree[Array]) -> Key[Array, " view"]:
        # Only from the record's own key and the step: adding or removing another record must not change a view of this
        # one. Folded in one by one, since a split could depend on the number of views of the largest record.
        key = jax.random.fold_in(jax.random.wrap_key_data(record["key"], impl="threefry2x32"), record["step"])
        return jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(record["weights"].shape[0]))

    def _view_loss(
        self,
        trainable: Parameters,
        rest: NonTrainable,
        stored: Shaped[Array, "*space channel"],
        stored_target: Shaped[Array, "..."],
        key: Key[Array, ""],
    ) -> tuple[Float[Array, ""], PyTree]:
        model = self._model(trainable, rest)
        image, target = self.normalise(stored), self.target(stored_target)
        augment = self.augment
        if augment is None:
            with computing_in(self.precision):
                prediction, state = self.forward(model, image, rest.state, key=key)
            return self.loss(prediction, target), state

        def version(key: Key[Array, ""]) -> tuple[Float[Array, ""], PyTree]:
            augment_key, model_key = jax.random.split(key)
            changed, changed_target = augment(augment_key, image, target)
            with computing_in(self.precision):
                prediction, state = self.forward(model, changed, rest.state, key=model_key)
            return self.loss(prediction, changed_target), state

        if self.multiplicity == 1:
            return version(key)
        losses, states = jax.vmap(version)(jax.random.split(key, self.multiplicity))
        return jnp.mean(losses), jax.tree.map(lambda leaf: leaf[-1], states)


def device_records(records: Records, *, step: int) -> dict[str, Shaped[np.ndarray, "..."] | Int[np.ndarray, " record"]]:
    """A loader's microbatch in the form that `Objective` takes; the step number is repeated for every record."""
    return {
        "inputs": records.inputs,
        "targets": records.targets,
        "weights": records.weights,
        "key": records.keys,
        "step": np.full(len(records.keys), step, np.int32),
    }


def in_all_shapes(
    records: PyTree[Shaped[ArrayLike, "record ..."]], *, views: Sequence[int] | None
) -> list[PyTree[jax.ShapeDtypeStruct]]:
    """The shapes of all microbatches that a step may have; they have as many records as this one.

    Args:
        records: a microbatch as `device_records` returns it.
        views: the loader's numbers of views; None if there is only that of `records`.
    """

    def shaped(path: Any, leaf: Any, count: int | None) -> jax.ShapeDtypeStruct:
        has_views = path[0].key in ("inputs", "targets", "weights")
        shape = leaf.shape if count is None or not has_views else (leaf.shape[0], count, *leaf.shape[2:])
        return jax.ShapeDtypeStruct(shape, leaf.dtype)  # type: ignore[no-untyped-call] # jax gives it no types

    return [
        jax.tree_util.tree_map_with_path(partial(shaped, count=count), records)
        for count in ((None,) if views is None else views)
    ]
