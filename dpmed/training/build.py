"""From a plan's tables to the objective and the initial weights of a run."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Int, PyTree

from dpmed.config.schema import Config
from dpmed.data.base import Info
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
