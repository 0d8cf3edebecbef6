"""From the config's table to a freshly initialised model: the only place that asks for its name."""

import math
from dataclasses import dataclass

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray, PyTree

from dpmed.config.model import MlpModel, ModelConfig, SmallCnnModel
from dpmed.errors import InputError
from dpmed.models.small import Mlp, SmallCnn


@dataclass(frozen=True, kw_only=True, eq=False)
class Built:
    """A model and what must be known of it.

    Attributes:
        module: called as `module(x, state, key=key) -> (prediction, state)` for one sample.
        state: running statistics, empty for models without.
        mixes_samples: whether samples of a batch influence each other, as in batch norm.
        parameters: how many numbers are trained.
    """

    module: eqx.Module
    state: PyTree
    mixes_samples: bool
    parameters: int


def build_model(
    config: ModelConfig, input_shape: tuple[int, ...], *, outputs: int, task: str, key: PRNGKeyArray
) -> Built:
    """The model that `config` describes.

    Args:
        config: the `[model]` table.
        input_shape: `(*space, channel)` of one sample.
        outputs: logits, or channels of the predicted image.
        task: `classification`, `segmentation` or `reconstruction`.
        key: fixes the initial weights.

    Raises:
        InputError: the model does not fit the task or the input.
    """
    if task != "classification":
        raise InputError(f"{config.name} gives one vector per sample and cannot do {task}", where="[model] name")
    module = _make(config, input_shape, outputs, key)
    leaves = jax.tree.leaves(eqx.filter(module, eqx.is_inexact_array))
    return Built(module=module, state=None, mixes_samples=False, parameters=sum(leaf.size for leaf in leaves))


def _make(config: ModelConfig, input_shape: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> eqx.Module:
    match config:
        case MlpModel():
            return Mlp(math.prod(input_shape), config.width, outputs, activation=config.activation, key=key)
        case SmallCnnModel():
            _check_cnn(config, input_shape)
            return SmallCnn(
                input_shape,
                config.channels,
                outputs,
                groups=config.groups,
                activation=config.activation,
                key=key,
            )


def _check_cnn(config: SmallCnnModel, input_shape: tuple[int, ...]) -> None:
    for channels in config.channels:
        if channels % config.groups:
            raise InputError(
                f"{config.groups} does not divide {channels} channels",
                where="[model] groups",
                remedy=f"Try {math.gcd(*config.channels)}.",
            )
    smallest = min(input_shape[:-1])
    if smallest < 2 ** len(config.channels):
        raise InputError(
            f"{len(config.channels)} stages halve an image of side {smallest} to nothing",
            where="[model] channels",
            remedy=f"Give at most {smallest.bit_length() - 1}.",
        )
