"""From a plan's tables to the objective and the first weights of a run."""

import equinox as eqx
import jax
from jaxtyping import PyTree

from dpmed.config.schema import Config
from dpmed.data.base import Info
from dpmed.models.build import Built
from dpmed.training.augment import build_augmentation
from dpmed.training.losses import build_loss
from dpmed.training.objective import Objective, Rest

_AUGMENTATION_STREAM = 1


def build_objective(config: Config, info: Info, model: Built) -> tuple[Objective, PyTree, Rest]:
    """What training makes small, the leaves that are trained, and all others.

    Args:
        config: `[loss]`, `[augmentation]` and the seed are used.
        info: the data set's constants.
        model: freshly initialised.
    """
    parameters, static = eqx.partition(model.module, eqx.is_inexact_array)
    trained, frozen = eqx.partition(parameters, jax.tree.map(lambda _: True, parameters))
    objective = Objective(
        static=static,
        loss=build_loss(config.loss, classes=len(info.class_names)),
        augment=build_augmentation(
            config.augmentation,
            dimensions=len(info.input_shape) - 1,
            moves_target=info.task != "classification",
        ),
        multiplicity=config.augmentation.multiplicity,
        image_target=info.task == "reconstruction",
        scale=info.scale,
        mean=info.mean,
        std=info.std,
        key=jax.random.fold_in(jax.random.key(config.training.seed), _AUGMENTATION_STREAM),
    )
    return objective, trained, Rest(frozen=frozen, state=model.state)
