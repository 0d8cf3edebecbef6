"""The training under attack: its plan, its weights, and the loss that its clients compute."""

from dataclasses import replace
from pathlib import Path

import equinox as eqx
from jaxtyping import PyTree

from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.files import EQX_FILE
from dpmed.inference.bundle.files import is_bundle
from dpmed.models.weights import load_weights
from dpmed.planning.plan import Plan, make_plan
from dpmed.progress import Progress
from dpmed.training.build import build_objective
from dpmed.training.objective import NonTrainable, Objective


def target_plan(config: Config, progress: Progress, *, weights: Path | None = None) -> Plan:
    """The plan of the training that is attacked.

    Args:
        config: config of the training.
        progress: shows how far the reading of data is.
        weights: a run folder, or its model.eqx, whose weights are attacked; None for fresh ones.

    Raises:
        InputError: the config clips in a way that attacks cannot model, its model mixes the samples of a batch, or
            `make_plan` or `with_weights` refuses it.
    """
    if config.privacy is not None and config.privacy.clipping.name != "flat":
        raise InputError(
            f'"{config.privacy.clipping.name}", but attacks only support updates with flat clipping',
            where="privacy.clipping",
            remedy='Attack the training with clipping = "flat", without the keys of the other kind.',
        )
    if config.training.precision != "float32":
        # Rounding would weaken the attack, and the measured risk must not look smaller than it is.
        config = config.model_copy(update={"training": config.training.model_copy(update={"precision": "float32"})})
        progress.say("Attacks compute in float32, whatever the training uses: they recover no less that way.")
    plan = make_plan(config, progress)
    if plan.model.mixes_samples:
        raise InputError(
            "batch normalisation mixes the samples of a batch, which the attacks do not model",
            where="model.normalisation",
            remedy='Use group norm: normalisation = "group".',
        )
    return with_weights(plan, weights)


def weights_file(path: Path) -> Path:
    """The weights file of a run folder; a path to a file is returned unchanged.

    Raises:
        InputError: there is nothing at this path, or the folder holds none.
    """
    if not path.exists():
        remedy = "Give the folder of a run that `dpmed train` has finished."
        raise InputError("there is no such folder or file", where=str(path), remedy=remedy)
    if not path.is_dir():
        return path
    if is_bundle(path):
        remedy = "Give the run folder that it was exported from."
        raise InputError("is a bundle, whose weights are stored in another form", where=str(path), remedy=remedy)
    if not (path / EQX_FILE).is_file():
        remedy = "Give the folder of a run that `dpmed train` has finished."
        raise InputError(f"holds no {EQX_FILE}", where=str(path), remedy=remedy)
    return path / EQX_FILE


def with_weights(plan: Plan, path: Path | None) -> Plan:
    """The plan with the weights of a run folder (or its model.eqx) instead of fresh ones.

    Raises:
        InputError: they are missing, damaged or from another model.
    """
    if path is None:
        return plan
    arrays, static = eqx.partition((plan.model.module, plan.model.state), eqx.is_array)
    loaded = load_weights(weights_file(path), arrays)
    module, state = eqx.combine(loaded, static)
    return replace(plan, model=replace(plan.model, module=module, state=state))


def target_objective(plan: Plan) -> tuple[Objective, PyTree, NonTrainable]:
    """The plan's objective, its trainable leaves and all others."""
    return build_objective(plan.config, plan.dataset.info, plan.model, class_counts=plan.class_counts)
