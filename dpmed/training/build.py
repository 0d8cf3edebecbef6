"""From a plan's tables to the objective and the initial weights of a run."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from dpmed.config.loss import CustomLoss
from dpmed.config.schema import Config
from dpmed.data.base import Info
from dpmed.errors import InputError
from dpmed.models.build import BuiltModel
from dpmed.training.augment import build_augmentation
from dpmed.training.losses import build_loss
from dpmed.training.objective import NonTrainable, Objective


def build_objective(
    config: Config,
    info: Info,
    model: BuiltModel,
    *,
    begins: PyTree[int] | None = None,
    class_counts: Int[np.ndarray, " classes"] | None = None,
) -> tuple[Objective, PyTree, NonTrainable]:
    """The objective of training, the leaves that are trained, and all others.

    Args:
        config: provides loss, augmentation and precision.
        info: the data set's constants.
        model: freshly initialised.
        begins: for each trained leaf, the step at which its training begins, as returned by `unfreezing`.
        class_counts: number of training samples of each class; None if samples have no single class.

    Raises:
        InputError: loss, augmentation and data do not go together.
    """
    parameters, static = eqx.partition(model.module, eqx.is_inexact_array)
    trained, frozen = eqx.partition(parameters, model.trained)
    objective = Objective(
        static=static,
        loss=build_loss(config.loss, task=info.task, classes=len(info.output_names), class_counts=class_counts),
        augment=build_augmentation(
            config.augmentation,
            dimensions=len(info.input_shape) - 1,
            moves_target=info.task in ("segmentation", "reconstruction"),
        ),
        multiplicity=config.augmentation.multiplicity,
        image_target=info.task == "reconstruction",
        scaling=info.scaling,
        target_scaling=info.target_scaling,
        begins=begins,
        precision="bfloat16" if config.training.precision == "bfloat16" else "float32",
    )
    return objective, trained, NonTrainable(frozen=frozen, state=model.state)


def check_objective(
    config: Config, info: Info, model: BuiltModel, *, class_counts: Int[np.ndarray, " classes"] | None = None
) -> None:
    """Refuse what would otherwise end a training at its first step, when its budget has been entered already.

    A loss of the user's own is differentiated as in training, for the network's answer to random pixels.

    Args:
        config: as for `build_objective`.
        info: the data set's constants.
        model: freshly initialised.
        class_counts: number of training samples of each class; None if samples have no single class.

    Raises:
        InputError: loss, augmentation and data do not go together, or the loss raises, returns anything but one float32
            number, or is not finite for any of the targets tried.
    """
    objective, _, _ = build_objective(config, info, model, class_counts=class_counts)
    if isinstance(config.loss, CustomLoss):
        # A network may take the logarithm or root of its pixels, which lie between 0 and 1 if not normalised.
        sample = jax.random.uniform(jax.random.key(0), info.input_shape, jnp.float32)
        # Jitted, since a large network takes seconds operation by operation.
        network = eqx.filter_jit(eqx.nn.inference_mode(model.module))
        prediction, _ = network(sample, model.state, key=None)
        zeros = _target_of_zeros(info)
        # A logarithm of the target may be meant for positive ones alone, or for those between 0 and 1; and a
        # correlation, for those that differ.
        varied = jax.random.uniform(jax.random.key(1), zeros.shape, minval=0.1, maxval=0.9)
        varied = varied.round() if jnp.issubdtype(zeros.dtype, jnp.integer) else varied
        targets = jnp.stack([zeros, jnp.ones_like(zeros), varied.astype(zeros.dtype)])
        # With values that are known, code would run that cannot be traced, such as NumPy's or an `if`.
        traced = jax.jit(jax.vmap(jax.value_and_grad(objective.loss), in_axes=(None, 0)))
        values, _ = traced(prediction, targets)
        if not jnp.isfinite(values).any():
            problem = "is not finite for random pixels, whether targets are zeros, ones or random numbers between them"
            remedy = "Look for a division by zero, or the logarithm or root of 0."
            raise InputError(problem, where=f"loss.factory = {config.loss.factory!r}", remedy=remedy)


def _target_of_zeros(info: Info) -> Array:
    """A target of the shape and type that a loss is given."""
    match info.task:
        case "classification":
            return jnp.zeros((), jnp.int32)
        case "multi-label":
            return jnp.zeros(len(info.output_names), jnp.int32)
        case "regression":
            return jnp.zeros(len(info.output_names), jnp.float32)
        case "segmentation":
            return jnp.zeros(info.input_shape[:-1], jnp.int32)
        case _:
            return jnp.zeros(info.input_shape, jnp.float32)


def unfreezing(model: BuiltModel, *, epochs_per_stage: float, steps_per_epoch: int) -> PyTree[int] | None:
    """For each trained leaf, the step at which its training begins: the head at the start, then stage by stage.

    Args:
        model: assigns leaves to stages.
        epochs_per_stage: if 0, everything is trained from the start, and the result is None.
        steps_per_epoch: updates per epoch.
    """
    if epochs_per_stage == 0:
        return None
    kept = eqx.filter(model.stages, model.trained)
    return jax.tree.map(lambda stage: round(stage * epochs_per_stage * steps_per_epoch), kept)
